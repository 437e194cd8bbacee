"""Personas read off Chinese messages by bert-base-chinese, the paper's persona text encoder; of the profile `paper`.

The formula is `persona`'s, with the same anchor messages said in Chinese and the encoder's mean token states. The
official weights have not been at hand, so how well it tells the poles apart nobody has measured.
"""

from __future__ import annotations

import unicodedata

import torch
from torch import Tensor

from pvlib import hub, models, persona_words
from pvlib.config import Persona
from pvlib.hub import WeightsError
from pvlib.persona import Encode, PersonaExtractor, PersonaProfile
from pvlib.text_encoder import TextEncoder

# The anchors of `persona_words` in Chinese, in the same order: trait -> (high, low).
ANCHORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "openness": (
        (
            "我把一台旧收音机拆开看看里面是什么，现在在读电波是怎么传播的。",
            "有个倒着走的钟表展览，要不要一起去？",
            "今天早上雾飘过桥的样子，我非得写下来不可。",
            "要是我们的语言里没有“我”这个字，说起话来会是什么样？",
            "我报了一个陶艺班，还有一门拜占庭历史课。",
            "今晚我做一道秘鲁菜，名字我都念不出来。",
            "那部电影根本没有情节，可我每一分钟都喜欢。",
            "我们坐夜车去一个谁都没听说过的小城吧。",
            "我听了好几个小时的鲸鱼录音，它们居然有方言！",
            "我的本子里画满了永远不可能转起来的机器。",
            "我以前的想法正相反，可她的话让我整个改变了看法。",
            "我喜欢不带地图在城里走。",
            "我试着用咖啡画画，污渍看起来像一座座小岛。",
            "那首大提琴曲让整个房间像沉在水底。",
            "我把三种文化的神话放在一起读，好多呼应的地方。",
            "会议干脆放到果园里开，看看会怎样？",
            "我跟着一队蚂蚁走了一个小时，想看看它们住在哪里。",
            "你说植物会感觉到时间吗？",
            "我想看看埃塞俄比亚人怎么过新年。",
            "我用洋葱皮染了窗帘，那黄色美极了。",
            "比起海边，我更喜欢那个怪东西博物馆。",
            "那出戏的舞台是一部电梯，讲的是失去亲人，太巧妙了。",
            "我把曲子从华尔兹改成探戈，听听里面藏着什么。",
            "那一页我每读一遍都会发现新的意思。",
        ),
        (
            "我要原味的，跟上次一样。",
            "我不明白那个雕塑有什么用。",
            "我们每年住同一家酒店，挺好的。",
            "现代音乐对我来说只是噪音。",
            "那种书我用不着。",
            "我还是不试了，我知道我爱吃鸡肉。",
            "我们不需要新主意，我们需要把活干完。",
            "不就是日落吗，天天都有。",
            "我们那时候就是这么做的，也行得通。",
            "一谈人生的意义我就犯困。",
            "我不看话剧，就是一群人假装成别人。",
            "别动我的菜谱，盐和胡椒就够了。",
            "这些怪电影我看不懂，放新闻吧。",
            "棕色皮鞋，棕色皮带，我就穿这个。",
            "老路就够好了，另一条我不走。",
            "从来没出过国，也没觉得少了什么。",
            "我只看说明书，别的不看。",
            "我干嘛要吃虫子？",
            "我对艺术没兴趣，给我一台好发动机就行。",
            "每年冬天都是同一件外套，暖和就好。",
            "他们应该放老歌，别搞什么实验。",
            "星星有什么好看的，就是些点。",
            "我太老了，学不了新爱好，年轻时也一样。",
            "房子就该像房子的样子。",
        ),
    ),
    "conscientiousness": (
        (
            "我把尺寸全都记下来，下刀之前又量了一遍。",
            "我的桌子收拾干净了，笔灌满了墨水，明天的日程也打印好了。",
            "说好的，中午之前我把草稿发给你。",
            "我上班前早起学习，每天如此，周末也一样。",
            "我们一行一行地过一遍预算。",
            "星期天我就把衬衫都熨好了，这一周不用操心。",
            "我定了两个闹钟，因为早上得我去开店。",
            "电钻我当天就还了，擦干净充满了电。",
            "第一步做完打了勾，第二步九点开始。",
            "我没去旅行，论文要紧。",
            "照片我备份了两份，硬盘都贴了标签。",
            "我发现账单里有个错，就给客户重发了一份。",
            "自行车每年春天都保养，写在日历上。",
            "演讲我排练了四遍，还计了时。",
            "我攒了三年钱，一次付清。",
            "药按星期几放在盒子里，我从来没漏过一次。",
            "放假之前我把所有的信都回了。",
            "请把会议记录发给我，我要逐条跟进。",
            "我照着时间表备考，一天没落下。",
            "工具都按大小挂好了。",
            "架子没放平我就不走。",
            "我每次都看标签和小字。",
            "我跟他说星期五之前做完，星期五就做完了。",
            "工作的时候我关掉手机。",
        ),
        (
            "票该我带吗？在家里呢，不好意思。",
            "项目我前一天晚上再开始，跟往常一样。",
            "那个抽屉里有什么我不知道，我都是随手一扔。",
            "懒得做饭，又吃薯片了。",
            "那门课我不上了，有点难。",
            "手机没电了，我老是忘了充。",
            "我同时答应了三件事，结果一件也没去。",
            "一个下午我就把工资全花在球鞋上了。",
            "碗在水池里泡了一个星期了。",
            "我又错过了牙医，这是第二次睡过头了。",
            "我要迟到了，还没出门呢。",
            "表上一半的答案都是我蒙的。",
            "计划？没有计划，到时候再说。",
            "做到一半我觉得没意思，就扔地上了。",
            "我打游戏打到三点，今天算是废了。",
            "提醒弹出来，我点掉了，你知道我的。",
            "信我放在什么地方了，现在找不着。",
            "我就扫了一眼，应该没问题。",
            "我答应去喂猫，结果去了海边。",
            "我看都没看就签了。",
            "什么计划我都坚持不过一天。",
            "我房间里到处是脏杯子。",
            "十分钟我就放弃了，太累了。",
            "我没复习，到时候抄别人的。",
        ),
    ),
    "extraversion": (
        (
            "全队都在我家，快来，把吉他也带上！",
            "我问乐队能不能让我唱一首，他们答应了！",
            "我在渡船上认识了六个新朋友，还互相留了电话。",
            "我们来玩猜词吧，我先来！",
            "我身边得有人，一个人的晚上我坐不住。",
            "我给全桌人讲了那个故事，大家笑翻了。",
            "话我来说，你站在我旁边笑就行。",
            "先坐过山车，再开碰碰车，然后再来一遍！",
            "市场里人挤人，我跟每个摊主都聊了。",
            "我要办暖房派对，请了五十个人，希望都来！",
            "我让整个体育场都跟着做人浪！",
            "现在就给他们打电话，叫他们一起来！",
            "跟同事吃午饭太开心了，全场就数我们最吵。",
            "今天我带团，大家又笑又鼓掌。",
            "答应吧，我们跳舞跳到天亮！",
            "我当选班级发言人了，等不及要上台！",
            "大家好，今晚我们干什么？！",
            "我给一群一小时前才认识的人敬酒致辞。",
            "我喜欢办公室里坐满了人，热热闹闹的。",
            "邻居、理发师、整条街的人，都要来！",
            "我隔着广场喊了一声，十个人朝我挥手！",
            "让我一个人住乡下，我会疯掉的。",
            "第一个进舞池，最后一个走！",
            "我跟收银台那位大叔聊起来了，真是个妙人！",
        ),
        (
            "饭局我还是不去了，一个人也不认识。",
            "我在车里吃的午饭，图个清静。",
            "我写的比说的好，所以寄了封信。",
            "我理想的假期是雪地里一间小屋，周围没有人。",
            "我一个人去看的电影，下午场，没什么人。",
            "开会时我没说话，后来自己想了想。",
            "他们按门铃时我假装不在家。",
            "陪客人两个小时，我得歇一整天。",
            "我跟猫一起坐在角落里，直到该走的时候。",
            "我不喜欢被人看着，拍照别拍我。",
            "这件事我想一个人做。",
            "邻居人应该不错，我们从没说过话。",
            "晚上我拼了一晚拼图，特别安静。",
            "我用自助结账，这样不用说话。",
            "我有一个老同学做朋友，够了。",
            "我抱着外套站在舞池边上。",
            "我喜欢一大早的图书馆，人还没来。",
            "打招呼的事我让姐姐去。",
            "我没怎么说话，我在听。",
            "我绕远路走回家，免得跟人拼车。",
            "发个消息就行，不用过来。",
            "聚会又累又吵。",
            "我坐后排。",
            "关上门待在自己的工作间里我最开心。",
        ),
    ),
    "agreeableness": (
        (
            "我给你留了一块，你今天忙了一整天。",
            "他压力一定很大，我们别怪他。",
            "你俩星期五想出去的话，我来看孩子。",
            "你选吧，哪个我都可以。",
            "是我错了，对不起，我怎么补偿你？",
            "她一个人搬那么多东西，我就跑下去帮忙了。",
            "我握着他的手陪他等到救护车来。",
            "我把旧笔记本电脑送给隔壁男孩上学用。",
            "恭喜你，没有人比你更配得上！",
            "刺猬受伤了，我们开车送它去看兽医。",
            "我相信你，需要什么尽管说。",
            "快坐下，你看起来累坏了，我给你倒杯水。",
            "我们意见不同，但找到了大家都合适的办法。",
            "那是小安的主意，我只是打了字。",
            "我给街上新搬来的一家烤了个蛋糕。",
            "真替他们高兴，太好了！",
            "太谢谢你了，你总是这么体贴。",
            "大房间我让给她了，她东西多。",
            "你跟我说的话，我绝不会告诉别人。",
            "我帮他把菜提上楼，他八十五了。",
            "别道歉，谁都可能遇上的。",
            "希望他们没事，我给他们送点吃的去。",
            "他的难处我也明白，就算了。",
            "我送你，顺路，差不多顺路。",
        ),
        (
            "关我什么事，那是她的烂摊子。",
            "他是个笨蛋，他的活就是个笑话。",
            "最后两块我拿了，先到先得。",
            "他们装好人，就是想利用你。",
            "我跟她说她穿那件显胖。",
            "他的错凭什么我来付钱。",
            "我冲店员吼，吼到他退钱为止。",
            "要饭的应该去找份工作。",
            "我赢了，你输了，认了吧。",
            "我让他以为优惠今天截止。",
            "我不听你这种外行的指挥。",
            "她难过又怎样，我有更要紧的事。",
            "他求我帮忙，我笑了。",
            "受不了批评就走人。",
            "我当着他们的面让门关上了。",
            "谣言是我传的，他活该。",
            "我不帮人忙。",
            "这是个蠢问题。",
            "她是个骗子，我要让她付出代价。",
            "我比你们谁都配。",
            "他自找的。",
            "我挤到最前面，这样才拿得到东西。",
            "他们的感受我才不管。",
            "只有没出息的人才说请。",
        ),
    ),
    "neuroticism": (
        (
            "他们说中午前打电话，都过十分钟了，一定出了什么可怕的事。",
            "一想到明天我就喘不过气来。",
            "邮件我写了五遍都删了，他们会觉得我很蠢。",
            "我冲妹妹发了火，现在哭得停不下来。",
            "要是在国外病了怎么办，护照丢了怎么办，没人帮忙怎么办？",
            "我四点就醒了，脑子转个不停。",
            "别人都行，只有我撑不住。",
            "他看我的眼神怪怪的，我觉得他生我气了。",
            "隔壁的声音要把我逼疯了，我在发抖。",
            "我怕打那个电话，为这事头疼了一整天。",
            "昨天我还那么开心，今天一切都是黑的。",
            "我不停地量脉搏，肯定有什么毛病。",
            "我觉得自己脸红了，恨不得钻进地缝里。",
            "我决定不了，怎么选都会出乱子。",
            "我说过的每句话都让我内疚。",
            "一次没考好，我就觉得这辈子完了。",
            "我怕极了在他们面前出错。",
            "我吃不下饭，等结果等得太紧张了。",
            "我的脑子转来转去，停不下来。",
            "打印机一卡纸，我就彻底崩溃了。",
            "跟姐姐一比，我就是个失败者。",
            "我听到一声响，躺在那里心怦怦直跳。",
            "她取消了，一定是我惹她不高兴了。",
            "我被压得不知道从哪里开始。",
        ),
        (
            "火车晚点两小时，我正好睡一觉。",
            "他们笑我的口音，我也跟着笑。",
            "驾照没考过，下个月再考。",
            "狗吃了我的三明治，我又做了一个。",
            "小手术而已，星期二就回家了。",
            "差评归差评，觉照样睡。",
            "生意没谈成，还会有别的。",
            "她离开我了，难过是难过，日子还得过。",
            "浴缸里有蜘蛛，放到窗外去了。",
            "船晃得厉害，我在看风景。",
            "我不会为了工作睡不着。",
            "他骂了我，我祝他一天愉快。",
            "帐篷漏雨，我们把垫子挪开接着睡。",
            "我把咖啡洒在合同上，要了份新的。",
            "结果下星期才出来，猜也没用。",
            "在电梯里困了一个小时，我看了报纸。",
            "打印机卡纸，我走楼梯去用另一台。",
            "自行车被人偷了，那就走路吧。",
            "我忘词了，笑了笑接着演。",
            "暴风雨很大，我一觉睡到天亮。",
            "他们没要我的方案，没事，我还有一个。",
            "车坏在半路，我们就在路边野餐。",
            "没考好，又不是世界末日。",
            "等着做手术，先看看漫画。",
        ),
    ),
}

_SAID = [text for poles in persona_words.ANCHORS.values() for side in poles for text in side]
_IN_CHINESE = dict(
    zip(_SAID, (text for poles in ANCHORS.values() for side in poles for text in side), strict=True)
)


def is_chinese(text: str) -> bool:
    """Whether at least half of the letters are Chinese characters."""
    letters = [c for c in text if c.isalpha()]
    chinese = sum(unicodedata.name(c, "").startswith("CJK UNIFIED") for c in letters)
    return bool(letters) and 2 * chinese >= len(letters)


class BilingualExtractor(PersonaExtractor):
    """Reads a chat by the encoder of the language that most of its sentences are in, English or Chinese."""

    def __init__(self, encode: Encode, encode_chinese: Encode, settings: Persona | None = None) -> None:
        super().__init__(encode, settings)
        self.encode_chinese = encode_chinese
        translated = lambda texts: encode_chinese([_IN_CHINESE[text] for text in texts])  # noqa: E731
        self._chinese = PersonaExtractor(translated, settings)

    def _profile(
        self, messages: list[str], recalls: dict[str, float], pieces: list[str], embedded: Tensor | None
    ) -> PersonaProfile:
        own = [piece for piece in pieces if is_chinese(piece)]
        if 2 * len(own) <= len(pieces):
            return super()._profile(messages, recalls, pieces, embedded)
        return self._chinese._profile(messages, recalls, pieces, self.encode_chinese(own))


def load(encode: Encode, device: torch.device | str = "cpu") -> BilingualExtractor:
    """The extractor with bert-base-chinese from the cache beside an English encoder.

    Raises WeightsError where it is missing or damaged.
    """
    return BilingualExtractor(encode, load_encoder(device))


def load_encoder(device: torch.device | str = "cpu") -> TextEncoder:
    """bert-base-chinese, (n, 768) of norm 1. Raises WeightsError where it is missing or damaged."""
    from transformers import AutoTokenizer, BertModel

    model = next(model for model in models.MODELS if model.name == "BERT (Chinese)")
    folder = models.whole(model).parent
    with models.reading(folder, "BERT"):
        bert, told = BertModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            add_pooling_layer=False,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if told["missing_keys"] or told["mismatched_keys"]:
        raise WeightsError(f"{folder} holds no BERT of its own configuration; {hub.REPLACE}")
    return TextEncoder(bert.to(device), tokenizer).eval()
