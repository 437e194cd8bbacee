"""What `persona` compares a text with: anchor messages, a small lexicon, and words of feedback.

The poles follow the facets of the Big Five (McCrae and Costa, 1992, the paper's theoretical basis), in our own words.
"""

from __future__ import annotations

# Messages as people write them, in which a pole of a trait shows without being named: trait -> (high, low).
ANCHORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "openness": (
        (
            "I took apart an old radio just to see what is inside, now I'm reading about how waves travel.",
            "There's an exhibition of clocks that run backwards, want to come?",
            "The way the fog moved over the bridge this morning, I had to write it down.",
            "What would our language sound like if we had no word for I?",
            "I signed up for a pottery class, and one on Byzantine history.",
            "Tonight I'm cooking something from Peru, I can't even pronounce it.",
            "That film had no plot at all and I loved every minute.",
            "Let's take the night train to a town that neither of us has heard of.",
            "I spent hours listening to whale recordings, they have dialects!",
            "My notebook is full of plans for machines that could never work.",
            "I used to think the opposite, but her argument turned my head around.",
            "I like to walk through a city without a map.",
            "I tried painting with coffee and the stains look like islands.",
            "That cello piece made the whole room feel like it was under water.",
            "I've been reading the myths of three cultures side by side, so many echoes.",
            "Why not hold the meeting in the orchard and see what happens?",
            "I followed a line of ants for an hour to see where they live.",
            "Do plants feel time, do you think?",
            "I'd like to see how they celebrate new year in Ethiopia.",
            "I dyed the curtains with onion skins, the yellow is extraordinary.",
            "I prefer the museum of odd things to the beach.",
            "The play was set in a lift and it was about grief, so clever.",
            "I changed the piece from waltz to tango to hear what hides in it.",
            "Each time I read that page I find another meaning.",
        ),
        (
            "I'll take the plain one, like last time.",
            "I don't understand what that sculpture is for.",
            "We go to the same hotel each year, it suits us.",
            "Modern music is only noise to me.",
            "I have no use for that kind of book.",
            "I'd rather not try it, I know I like the chicken.",
            "We don't need new ideas, we need the work done.",
            "It's a sunset, there's one every day.",
            "That's how it was done in my day and it worked.",
            "Talking about the meaning of life makes me sleepy.",
            "I don't go to the theatre, people pretending to be other people.",
            "Leave my recipe alone, salt and pepper is enough.",
            "I can't follow these weird films, put the news on.",
            "Brown shoes, brown belt, that's what I wear.",
            "The old road is good enough, I won't drive the other one.",
            "Never been abroad and I'm not missing anything.",
            "I read the instructions and nothing else.",
            "Why would I want to eat insects?",
            "I'm not one for art, give me a good engine.",
            "Same jacket as every winter, it keeps me warm.",
            "They should play the old hits and leave the experiments.",
            "I don't see anything in the stars, they're dots.",
            "I'm too old for new hobbies and was when I was young.",
            "A house should look like a house.",
        ),
    ),
    "conscientiousness": (
        (
            "I wrote down all the measurements and measured again before cutting.",
            "My desk is clear, my pens are filled and tomorrow's agenda is printed.",
            "I'll have the draft with you by noon as agreed.",
            "I get up early to study before work, every day, weekends too.",
            "Let's go through the budget line by line.",
            "I ironed the shirts on Sunday so that the week is taken care of.",
            "I set two alarms, since I have to open the shop.",
            "I returned the drill the same day, cleaned and charged.",
            "Step one is done and ticked off, step two starts at nine.",
            "I turned down the trip because the thesis comes first.",
            "I backed up the photos in two places and labelled the drives.",
            "I noticed a mistake in my invoice, so I sent the customer a corrected one.",
            "The bikes are serviced every spring, it's in the calendar.",
            "I rehearsed the talk four times and timed it.",
            "I saved for three years and paid for it in full.",
            "The medicine goes in the box by weekday, I never miss one.",
            "I answered all my letters before going on holiday.",
            "Please send me the minutes, I want to follow up on each point.",
            "I trained for the exam with a timetable and kept to it.",
            "The tools are hung up by size.",
            "I stayed until the shelf was level.",
            "I always read the label and the small print.",
            "I told him I would finish by Friday, and on Friday it was finished.",
            "I turn off the phone while I work.",
        ),
        (
            "Was I supposed to bring the tickets? They're at home, sorry.",
            "I'll start the project the night before, like always.",
            "No idea what's in that drawer, I just throw things in.",
            "I couldn't be bothered to cook, so it's crisps again.",
            "I quit the course, it got a bit hard.",
            "My phone is dead, I never remember to charge it.",
            "I said yes to three things at the same time and went to none.",
            "I spent my pay on sneakers in one afternoon.",
            "The dishes have been in the sink for a week.",
            "I missed the dentist again, that's the second one I've slept through.",
            "I'm running late, haven't even left the house.",
            "I guessed half the answers on the form.",
            "The plan? There is no plan, it'll work out.",
            "I got bored halfway and left it on the floor.",
            "I played games until three, so today is ruined.",
            "The reminder came, I clicked it away, you know me.",
            "I put the letter somewhere and now it's gone.",
            "I only skimmed it, I'm sure it's fine.",
            "I promised to feed the cat and then I went to the beach.",
            "I signed it without reading.",
            "I can't stick to any plan for more than a day.",
            "There are dirty cups all over my room.",
            "I gave up after ten minutes, it was too tiring.",
            "I didn't study, I'll just copy from someone.",
        ),
    ),
    "extraversion": (
        (
            "The whole team is at my place, come over and bring your guitar!",
            "I asked the band whether I could sing one, and they let me!",
            "I met six new people on the ferry and we swapped numbers.",
            "Let's play charades, I'll start!",
            "I need people around me, an empty evening makes me restless.",
            "I told the story to the whole table and they roared.",
            "I'll do the talking, just stand next to me and smile.",
            "Roller coaster first, then the bumper cars, then again!",
            "The market was packed and I chatted at every stall.",
            "I'm throwing a housewarming, fifty invited, hope they all turn up!",
            "I got the entire stadium to do the wave!",
            "Let's call them up right now and ask them to join us!",
            "Lunch with the colleagues was so much fun, we were the loudest in the room.",
            "I ran the tour today and everybody was laughing and clapping.",
            "Say yes, we'll go dancing till morning!",
            "I've been elected class speaker, I can't wait to get up there!",
            "Hello everyone, what are we doing tonight?!",
            "I gave a toast to people I had met an hour earlier.",
            "I love the office when it's full and buzzing.",
            "My neighbours, my barber, the whole street, they're all coming!",
            "I shouted across the square and ten people waved back!",
            "I'd go mad living alone in the country.",
            "First on the dance floor and last to leave!",
            "I started a conversation with the man at the till, what a character!",
        ),
        (
            "I'd rather not come to the dinner, I won't know anyone.",
            "I ate my lunch in the car to have some peace.",
            "I write better than I speak, so I sent a letter.",
            "My ideal holiday is a hut in the snow and nobody around.",
            "I went to the cinema on my own, in the afternoon when it's empty.",
            "I kept silent in the meeting and thought about it later.",
            "I pretended not to be home when they rang.",
            "Two hours with visitors and I need a day to recover.",
            "I sat in a corner with the cat until it was time to go.",
            "I don't like being looked at, please leave me out of the picture.",
            "I'd like to work by myself on this one.",
            "The neighbours are nice, I think. We have never spoken.",
            "I spent the evening on a puzzle, it was so peaceful.",
            "I use the self-checkout so that I needn't talk.",
            "I have one friend from school and that is plenty.",
            "I stood at the edge of the dance floor holding my coat.",
            "I like the library early, before people come.",
            "I let my sister do the greeting.",
            "I didn't say much, I was listening.",
            "I walked home the long way so I wouldn't have to share a cab.",
            "A message is fine, you don't need to visit.",
            "I find parties tiring and noisy.",
            "I sit at the back.",
            "I'm happiest in my workshop with the door closed.",
        ),
    ),
    "agreeableness": (
        (
            "I saved you a slice, you had such a long day.",
            "He must have been under a lot of stress, let's not hold it against him.",
            "I can babysit on Friday if you two need an evening.",
            "You choose, I'm happy with either.",
            "I was wrong, I'm sorry, how can I make it up to you?",
            "She carried it all by herself so I ran down to help.",
            "I sat with him until the ambulance came and held his hand.",
            "I gave my old laptop to the boy next door for school.",
            "Congratulations, nobody has earned it more than you!",
            "The hedgehog was hurt, so we drove it to the vet.",
            "I trust you, just tell me what you need.",
            "Please sit down, you look exhausted, I'll get you some water.",
            "We didn't agree but we found a way that suits everyone.",
            "It was Ana's idea, I only typed it up.",
            "I baked a cake for the new family in the street.",
            "I'm so glad for them, what wonderful news!",
            "Thank you so much, you are always so thoughtful.",
            "I let her have the bigger room, she has more things.",
            "I'd never tell anyone what you told me.",
            "I carried his shopping up, he is eighty-five.",
            "Don't apologise, it could happen to anyone.",
            "I hope they're all right, I'll bring them some food.",
            "I could see his side too, so I let it go.",
            "I'll drive you, it's on my way, more or less.",
        ),
        (
            "Why should I care, it's her mess.",
            "He is a fool and his work is a joke.",
            "I took the last two pieces, first come first served.",
            "They only pretend to be nice so that they can use you.",
            "I told her she looks fat in it.",
            "I'm not paying for his mistakes.",
            "I shouted at the clerk until he gave me a refund.",
            "Beggars should get a job.",
            "I won, you lost, get over it.",
            "I made him believe the offer would end today.",
            "I don't take orders from amateurs like you.",
            "She was upset, so what, I had better things to do.",
            "He asked for a favour and I laughed.",
            "If you can't take criticism, leave.",
            "I let the door fall shut in front of them.",
            "I spread the rumour, he had it coming.",
            "I don't do favours.",
            "That's a stupid question.",
            "She's a liar and I'll make her pay for it.",
            "I deserve it more than any of you.",
            "Serves him right.",
            "I pushed to the front, that's how you get things.",
            "I couldn't care less about their feelings.",
            "Only losers say please.",
        ),
    ),
    "neuroticism": (
        (
            "They said they would call by noon, it's ten past, something awful must have happened.",
            "I can't breathe properly when I think of tomorrow.",
            "I wrote the email five times and deleted it, they'd think I'm stupid.",
            "I snapped at my sister and now I can't stop crying.",
            "What if I get sick abroad, what if I lose my passport, what if nobody helps?",
            "I woke at four with my thoughts racing.",
            "Everybody else manages, only I fall apart.",
            "He looked at me strangely, I think he's angry with me.",
            "The noise next door is driving me mad, I'm shaking.",
            "I'm dreading the phone call, I've had a headache all day because of it.",
            "Yesterday I was so happy and today it is all black.",
            "I keep checking my pulse, I'm sure something is wrong.",
            "I felt myself go red and wanted the floor to swallow me.",
            "I can't decide, whatever I choose will be a disaster.",
            "I feel guilty about everything I said.",
            "One bad mark and I felt like my life was over.",
            "I'm terrified of making a mistake in front of them.",
            "I can't eat, I'm so nervous about the results.",
            "My mind goes round in circles and I can't switch it off.",
            "I lost it completely when the printer jammed.",
            "I feel like a failure next to my sister.",
            "I heard a noise and lay there with my heart pounding.",
            "She cancelled, I must have upset her.",
            "I'm so overwhelmed I don't know where to begin.",
        ),
        (
            "The train is delayed by two hours, so I'm having a nap.",
            "They laughed at my accent and I laughed too.",
            "I failed the driving test, I'll take it again next month.",
            "The dog ate my sandwich, so I made another.",
            "It is a small operation, I'll be home by Tuesday.",
            "Bad review, good night's sleep.",
            "The deal fell through, there will be others.",
            "She left me, it's sad, and life goes on.",
            "Spider in the bath, put it out of the window.",
            "The boat was rocking quite a bit, I enjoyed the view.",
            "I don't lie awake over work.",
            "He insulted me, I wished him a good day.",
            "The tent leaked, we moved the mattress and went back to sleep.",
            "I spilt coffee on the contract and asked for a new copy.",
            "The results come next week, no point in guessing.",
            "Stuck in the lift for an hour, I read the paper.",
            "The printer jammed, I took the stairs to the other one.",
            "Somebody stole my bike, so I walk now.",
            "I forgot my lines, smiled and carried on.",
            "Heavy storm, slept right through.",
            "They rejected my proposal, fine, I have another.",
            "The car broke down and we had a picnic by the road.",
            "I got a bad grade, it isn't the end of the world.",
            "Waiting for the surgeon and reading the comics.",
        ),
    ),
}


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# trait -> (words of the high pole, words of the low pole). A star stands for any ending; Chinese entries are found
# anywhere in a message.
LEXICON: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "openness": (
        _words(
            "imagin* curious curiosity creativ* wonder wondering fascinat* poem* poetry art artist* philosoph* dream* "
            "idea ideas explor* invent* strange beautiful novel* 好奇 想象 艺术 诗 哲学 探索 创意 灵感"
        ),
        _words("tradition* usual normal practical nonsense boring pointless 传统 老样子 没意思 务实 照旧"),
    ),
    "conscientiousness": (
        _words(
            "plan* schedul* organi* tidy careful* deadline* finish* list* check* prepar* punctual* goal* ready exact* "
            "proper* 计划 认真 整理 准时 完成 检查 目标"
        ),
        _words("forgot* lazy mess messy whatever lost late 忘了 懒 拖延 乱 迟到 随便 无所谓"),
    ),
    "extraversion": (
        _words(
            "party parties everyone everybody friends together fun crowd* talk talked chat* loud* excit* amazing "
            "awesome danc* 聚会 派对 热闹 大家 朋友们 一起 太棒了 哈哈"
        ),
        _words(
            "alone quiet* shy silent silence myself avoid* solitude private* 独处 安静 一个人 害羞 内向 不想说话 宅"
        ),
    ),
    "agreeableness": (
        _words(
            "thank* please sorry kind kindly help helped helping share* lovely care cares hug* forgiv* welcome "
            "谢谢 感谢 帮 抱歉 对不起 辛苦了 关心 没关系"
        ),
        _words(
            "stupid* idiot* hate* useless liar* selfish fight* insult* 蠢 笨蛋 滚 讨厌 烦人 活该 废物 闭嘴"
        ),
    ),
    "neuroticism": (
        _words(
            "worr* afraid scared anxi* nervous* panic* cry cried crying tears terribl* awful stress* hopeless* ashamed "
            "overwhelm* 担心 害怕 焦虑 紧张 难过 崩溃 绝望 想哭 失眠"
        ),
        _words("calm* relax* fine okay easy easily steady peaceful* 淡定 冷静 放松 没事 平静 不要紧 轻松"),
    ),
}

# Words of feedback: trait -> (words that mean more of it, words that mean less). English words are also known with
# -er, -ly and -ness.
FEEDBACK: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "openness": (
        _words(
            "open open-minded openness curious creative imaginative adventurous artistic inventive "
            "开放 好奇 创意 想象力 爱冒险 文艺"
        ),
        _words("conventional traditional closed-minded down-to-earth conservative 传统 保守 务实 古板"),
    ),
    "conscientiousness": (
        _words(
            "organised organized careful disciplined reliable conscientious conscientiousness responsible punctual "
            "tidy diligent serious 认真 自律 有条理 可靠 负责 严谨 勤奋 尽责"
        ),
        _words("careless messy sloppy lazy spontaneous easy-going chaotic 随意 懒 粗心 散漫 马虎 随性"),
    ),
    "extraversion": (
        _words(
            "extraverted extroverted extravert extrovert extraversion extroversion outgoing cheerful talkative "
            "sociable lively energetic enthusiastic bubbly happy loud confident "
            "外向 开朗 活泼 健谈 热情 快乐 开心 阳光 活力 自信"
        ),
        _words(
            "introverted introvert introversion shy quiet reserved withdrawn timid 内向 害羞 安静 沉默 腼腆 低调"
        ),
    ),
    "agreeableness": (
        _words(
            "agreeable agreeableness kind warm friendly gentle polite caring nice patient soft sympathetic helpful "
            "友善 友好 温柔 善良 体贴 亲切 礼貌 耐心 温暖 随和 宜人"
        ),
        _words(
            "rude harsh cold blunt mean stubborn aggressive selfish sarcastic 粗鲁 刻薄 冷漠 冷淡 强势 固执 自私 毒舌"
        ),
    ),
    "neuroticism": (
        _words(
            "nervous anxious worried neurotic neuroticism tense moody insecure fearful sensitive stressed irritable "
            "紧张 焦虑 神经质 情绪化 敏感 担心 不安 急躁 暴躁"
        ),
        _words("calm relaxed stable steady laid-back carefree composed 平静 冷静 放松 稳重 淡定 沉稳 从容"),
    ),
}
