// The page of `pvlib serve`. What the server says is put in as text, never as markup.

const DRAWN = "http://www.w3.org/2000/svg";
const TRAITS = ["openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism"];
const CLIP_SECONDS = 1;
const MOST_BYTES = 32e6; // of a request
const READ = /\.(wav|flac|ogg|mp3|aiff?)$/i; // what the server decodes
const WIDEST = 16000; // pixels that a browser's canvas takes
const BOX = { width: 146, height: 52, right: 172, down: 82 };

const at = (id) => document.getElementById(id);
const state = { recording: null, traits: null, before: null, graph: null, usual: {}, urls: {} };

function make(name, attributes = {}, text = "", drawn = false) {
  const element = drawn ? document.createElementNS(DRAWN, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== "") element.textContent = text;
  return element;
}
const draw = (name, attributes, text) => make(name, attributes, text, true);

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer; is `pvlib serve` still running?");
  }
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error || `status ${answer.status}`);
  return found;
}
const post = (path, body) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

function tell(id, error) {
  at(id).hidden = !error;
  at(id).textContent = error ? error.message : "";
}

function bytes(base64) {
  return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}

function play(id, blob) {
  URL.revokeObjectURL(state.urls[id]);
  state.urls[id] = URL.createObjectURL(blob);
  at(id).src = state.urls[id];
}

// Pictures

// Magma, as in the notebooks: nine of its colours, joined by straight lines.
const MAGMA = ["000004", "1d1147", "51127c", "822681", "b63679", "e65164", "fb8861", "fec287", "fcfdbf"].map((hex) =>
  [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)),
);
function colour(level) {
  const place = (level / 255) * (MAGMA.length - 1);
  const low = Math.min(Math.floor(place), MAGMA.length - 2);
  return MAGMA[low].map((value, i) => value + (place - low) * (MAGMA[low + 1][i] - value));
}

// longest: seconds that the full width stands for, so that two pictures share one scale.
function drawMel(id, mel, longest) {
  const canvas = at(id);
  const levels = bytes(mel.levels);
  const width = Math.min(mel.frames, WIDEST);
  canvas.width = width;
  canvas.height = mel.bands;
  canvas.style.width = `${Math.max(4, (100 * mel.seconds) / longest)}%`;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, mel.bands);
  for (let band = 0; band < mel.bands; band++)
    for (let x = 0; x < width; x++) {
      const frame = Math.floor((x * mel.frames) / width);
      const place = 4 * ((mel.bands - 1 - band) * width + x);
      image.data.set([...colour(levels[band * mel.frames + frame]), 255], place);
    }
  context.putImageData(image, 0, 0);
}

function ringPoints(values, radius = 105) {
  return values.map((value, i) => {
    const angle = (2 * Math.PI * i) / values.length - Math.PI / 2;
    const length = (radius * (value + 1)) / 2;
    return [length * Math.cos(angle), length * Math.sin(angle)];
  });
}
const joined = (points) => points.map((point) => point.map((x) => x.toFixed(1)).join(",")).join(" ");

function drawRadar() {
  const radar = at("radar");
  radar.replaceChildren();
  for (const level of [-0.5, 0, 0.5, 1])
    radar.append(draw("circle", { r: (105 * (level + 1)) / 2, class: level ? "ring" : "ring zero" }));
  ringPoints(TRAITS.map(() => 1.25)).forEach(([x, y], i) => {
    const anchor = Math.abs(x) < 5 ? "middle" : x > 0 ? "start" : "end";
    radar.append(draw("text", { x: 0.9 * x, y: y + 4, "text-anchor": anchor }, TRAITS[i]));
  });
  for (const name of ["before", "after"]) {
    const traits = name === "after" ? state.traits : state.before;
    if (traits) radar.append(draw("polygon", { points: joined(ringPoints(TRAITS.map((t) => traits[t]))), class: name }));
  }
  const spoken = state.traits ? TRAITS.map((t) => `${t} ${state.traits[t].toFixed(2)}`).join(", ") : "none yet";
  radar.setAttribute("aria-label", `Big Five traits: ${spoken}`);
  at("traits").querySelectorAll("input").forEach((slider) => {
    slider.value = state.traits ? state.traits[slider.name] : 0;
    slider.previousElementSibling.textContent = Number(slider.value).toFixed(2);
  });
}

function layTraits() {
  for (const trait of TRAITS) {
    const label = make("label", {}, trait);
    const slider = make("input", { type: "range", name: trait, min: -1, max: 1, step: 0.01, value: 0 });
    slider.addEventListener("input", () => {
      state.traits = { ...Object.fromEntries(TRAITS.map((t) => [t, 0])), ...state.traits, [trait]: Number(slider.value) };
      drawRadar();
    });
    label.append(make("output", {}, "0.00"), slider);
    at("traits").append(label);
  }
  drawRadar();
}

// The module graph

function place(node) {
  return [node.column * BOX.right + 8, node.row * BOX.down + 8];
}

function drawGraph(found) {
  state.graph = found;
  const graph = at("graph");
  graph.replaceChildren();
  const far = (key, step, size) => Math.max(...found.nodes.map((node) => node[key])) * step + size + 16;
  graph.setAttribute("viewBox", `0 0 ${far("column", BOX.right, BOX.width)} ${far("row", BOX.down, BOX.height)}`);
  const known = Object.fromEntries(found.nodes.map((node) => [node.id, node]));
  for (const edge of found.edges) {
    const [from, to] = [known[edge.source], known[edge.target]];
    const [x1, y1] = place(from);
    const [x2, y2] = place(to);
    let path;
    if (from.column === to.column) {
      const down = y2 > y1;
      const x = x1 + BOX.width / 2;
      path = `M${x},${down ? y1 + BOX.height : y1} L${x},${down ? y2 : y2 + BOX.height}`;
    } else {
      const [start, end, middle] = [x1 + BOX.width, x2, (x2 - x1 - BOX.width) / 2];
      const [a, b] = [y1 + BOX.height / 2, y2 + BOX.height / 2];
      path = `M${start},${a} C${start + middle},${a} ${end - middle},${b} ${end},${b}`;
    }
    const line = draw("path", { d: path, class: "edge", "data-from": edge.source, "data-to": edge.target });
    line.append(draw("title", {}, [edge.carries, edge.shape].filter(Boolean).join(" ")));
    graph.append(line);
  }
  for (const node of found.nodes) graph.append(drawNode(node));
  layParameters(found.parameters);
  inspect("backbone");
}

function drawNode(node) {
  const [x, y] = place(node);
  const group = draw("g", { class: `node ${node.on ? "" : "unused"}`, tabindex: 0, role: "button", "data-id": node.id });
  group.append(draw("rect", { x, y, width: BOX.width, height: BOX.height, rx: 7, class: "box" }));
  group.append(draw("text", { x: x + 10, y: y + 22, class: "name" }, node.label));
  const size = node.parameters ? `${count(node.parameters)}, ${node.trained}` : node.on ? "no weights" : "off";
  group.append(draw("text", { x: x + 10, y: y + 40, class: "size" }, node.on || !node.parameters ? size : `${size}, off`));
  if (node.core) group.append(draw("text", { x: x + BOX.width - 10, y: y + 22, class: "core", "text-anchor": "end" }, `Core ${node.core}`));
  group.addEventListener("click", () => inspect(node.id));
  group.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    inspect(node.id);
  });
  return group;
}

function count(number) {
  return number >= 1e6 ? `${(number / 1e6).toFixed(1)} M` : number >= 1e3 ? `${(number / 1e3).toFixed(0)} k` : `${number}`;
}

function inspect(id) {
  const node = state.graph.nodes.find((one) => one.id === id);
  document.querySelectorAll("#graph .node").forEach((g) => g.classList.toggle("chosen", g.dataset.id === id));
  document.querySelectorAll("#graph .edge").forEach((line) => {
    line.classList.toggle("near", line.dataset.from === id || line.dataset.to === id);
  });
  const rows = [["source", node.source]];
  if (node.core) rows.unshift(["core", node.core]);
  if (node.parameters) rows.push(["parameters", `${node.parameters.toLocaleString("en")} (${node.trained})`]);
  for (const [name, value] of Object.entries(node.settings)) rows.push([name, `${value}`]);
  const flows = (key, other) =>
    state.graph.edges.filter((edge) => edge[key] === id).map((edge) => {
      const partner = state.graph.nodes.find((one) => one.id === edge[other]).label;
      return `${edge.carries}${edge.shape ? ` ${edge.shape}` : ""} (${partner})`;
    });
  for (const [name, found] of [["in", flows("target", "source")], ["out", flows("source", "target")]])
    if (found.length) rows.push([name, found.join("; ")]);
  at("inspector").replaceChildren(make("h3", {}, node.label), make("p", {}, node.does), list(rows));
}

function list(rows) {
  const found = make("dl");
  for (const [name, value] of rows) found.append(make("dt", {}, name), make("dd", {}, value));
  return found;
}

// The sampling that the server was started with; only what is changed here is sent.
function takeUsual(rows) {
  for (const [id, name] of [["steps", "steps"], ["guidance", "cfg_strength"]]) {
    state.usual[id] = rows.find((row) => row.name === name).value;
    at(id).value = state.usual[id];
  }
}

function layParameters(rows) {
  const table = at("parameters");
  table.replaceChildren();
  const head = make("tr");
  for (const name of ["parameter", "value", "default"]) head.append(make("th", { scope: "col" }, name));
  table.append(head);
  for (const row of rows) {
    const line = make("tr", { class: `${row.value}` === `${row.default}` ? "" : "changed" });
    for (const value of [row.name, row.value, row.default]) line.append(make("td", {}, `${value}`));
    table.append(line);
  }
}

// A clone

function show(found) {
  at("nothing").hidden = true;
  at("result").hidden = false;
  const blob = new Blob([bytes(found.audio)], { type: "audio/wav" });
  play("speech", blob);
  at("save").href = state.urls.speech;
  const longest = Math.max(found.mel.seconds, found.reference_mel.seconds);
  drawMel("reference-mel", found.reference_mel, longest);
  drawMel("mel", found.mel, longest);
  at("reference-seconds").textContent = `${found.reference_mel.seconds.toFixed(2)} s`;
  at("seconds").textContent = `${found.mel.seconds.toFixed(2)} s`;
  const similarity = found.secs === null ? "not to be had" : found.secs.toFixed(3);
  const wrong = found.wer === null ? "not to be had" : `${(100 * found.wer).toFixed(0)} % of the words`;
  at("facts").replaceChildren(
    ...list([
      ["length", `${found.seconds.toFixed(2)} s, made in ${found.synthesis_seconds.toFixed(1)} s (RTF ${found.rtf.toFixed(2)})`],
      ["the clip says", found.transcript],
      ["the clone says", found.heard || "nothing that the recogniser hears"],
      ["heard wrongly", wrong],
      ["like the clip", `${similarity} (cosine of ECAPA-TDNN embeddings; notebook 00 tells what strangers reach)`],
    ]).childNodes,
  );
  at("warnings").replaceChildren(...found.warnings.map((words) => make("li", {}, words)));
  at("chunks").replaceChildren(
    ...found.chunks.map((c) => make("li", {}, `${c.text} (${c.frames} frames with the clip, guidance ${c.cfg_strength}, FiLM ${c.film ? "on" : "off"})`)),
  );
  const label = (id) => state.graph?.nodes.find((node) => node.id === id)?.label ?? id;
  at("conditions").replaceChildren(
    ...found.conditions.map((one) => {
      const line = make("li", { class: one.on ? "on" : "off" });
      line.append(make("b", {}, label(one.node)), one.words);
      return line;
    }),
  );
  document.querySelectorAll("#graph .node").forEach((g) => {
    g.classList.toggle("on", found.took_part.includes(g.dataset.id));
  });
}

// While a request is out its button waits, and says for how long.
async function waiting(button, words, problem, work) {
  if (button.getAttribute("aria-disabled") === "true") return;
  const [usual, begun] = [button.textContent, performance.now()];
  button.setAttribute("aria-disabled", "true");
  const ticking = setInterval(() => {
    const seconds = Math.floor((performance.now() - begun) / 1000);
    if (seconds) button.textContent = `${words} ${seconds} s`;
  }, 200);
  try {
    tell(problem, null);
    await work(button);
  } catch (error) {
    tell(problem, error);
  } finally {
    clearInterval(ticking);
    button.removeAttribute("aria-disabled");
    button.textContent = usual;
  }
}

function order() {
  const form = new FormData(at("clone"));
  if (state.recording) form.append("reference", state.recording, state.recording.name || "recording.wav");
  if (!form.get("emotion")) form.delete("emotion_strength");
  if (at("use-persona").checked) {
    form.append("chat", at("chat").value);
    if (state.traits) form.append("traits", JSON.stringify(state.traits));
  }
  const settings = {};
  for (const [id, name] of [["steps", "steps"], ["guidance", "cfg_strength"]])
    if (Number(at(id).value) !== (state.usual[id] ?? Number(at(id).defaultValue))) settings[name] = Number(at(id).value);
  form.append("settings", JSON.stringify(settings));
  return form;
}

function speak(event) {
  event.preventDefault();
  const work = async () => show(await ask("api/clone", { method: "POST", body: order() }));
  return waiting(at("speak"), "Speaking…", "problem", work);
}

// A recording

function tellVoice(words) {
  at("voice").textContent = words;
}

function takeDemo() {
  state.recording = null;
  at("file").value = "";
  play("reference", state.demo);
  tellVoice("The demo clip: one second of a speaker who does not exist.");
}

async function loadDemo() {
  const found = await ask("api/demo/sample");
  state.demo = new Blob([bytes(found.audio)], { type: "audio/wav" });
  if (!state.recording) takeDemo();
  at("texts").replaceChildren(
    ...found.texts.map(({ name, text }) => {
      const button = make("button", { type: "button" }, name);
      button.addEventListener("click", () => (at("text").value = text));
      return button;
    }),
  );
}

function take(file) {
  if (file.size > MOST_BYTES) throw new Error(`${file.name} has ${(file.size / 1e6).toFixed(0)} MB; one second of speech is enough`);
  state.recording = file;
  play("reference", file);
  tellVoice("Your recording. It is sent with the text, and not kept.");
}

async function choose(event) {
  const [file] = event.target.files;
  if (!file) return;
  try {
    tell("problem", null);
    take(READ.test(file.name) ? file : await asWav(file));
  } catch (error) {
    takeDemo();
    tell("problem", new Error(`${file.name} cannot be used: ${error.message}`));
  }
}

// libsndfile reads no browser's own format, so what was recorded goes as 16-bit wav.
async function asWav(blob) {
  const context = new AudioContext();
  let sound;
  try {
    sound = await context.decodeAudioData(await blob.arrayBuffer());
  } finally {
    await context.close();
  }
  const samples = sound.getChannelData(0);
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const words = (offset, text) => [...text].forEach((c, i) => view.setUint8(offset + i, c.charCodeAt(0)));
  words(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); words(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, sound.sampleRate, true); view.setUint32(28, 2 * sound.sampleRate, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  words(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, value)), true));
  return new File([view.buffer], "recording.wav", { type: "audio/wav" });
}

function record() {
  return waiting(at("record"), "Recording…", "problem", async (button) => {
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      const recorder = new MediaRecorder(stream);
      const parts = [];
      recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
      const ended = new Promise((done) => recorder.addEventListener("stop", done));
      recorder.start();
      button.textContent = "Speak now…";
      await new Promise((done) => setTimeout(done, 1000 * CLIP_SECONDS + 150));
      recorder.stop();
      await ended;
      take(await asWav(new Blob(parts, { type: recorder.mimeType })));
      at("file").value = "";
    } catch (error) {
      throw new Error(`Nothing was recorded: ${error.message}`);
    } finally {
      stream?.getTracks().forEach((track) => track.stop());
    }
  });
}

// A persona

function analyze(event) {
  event.preventDefault();
  return waiting(event.submitter ?? at("analyze").querySelector("button"), "Reading…", "persona-problem", async () => {
    const found = await post("api/persona/analyze", { chat: at("chat").value.split("\n") });
    [state.before, state.traits] = [null, found.traits];
    at("use-persona").checked = true;
    drawRadar();
  });
}

function calibrate(event) {
  event.preventDefault();
  return waiting(event.submitter ?? at("calibrate").querySelector("button"), "Correcting…", "persona-problem", async () => {
    const traits = state.traits ?? Object.fromEntries(TRAITS.map((t) => [t, 0]));
    const found = await post("api/persona/calibrate", { traits, feedback: at("feedback").value });
    [state.before, state.traits] = [traits, found.traits];
    drawRadar();
  });
}

async function loadHealth() {
  const health = at("health");
  try {
    const found = await ask("api/health");
    const wrong = Object.entries(found.weights).filter(([, one]) => !["present", "not trained"].includes(one.state));
    const lacking = wrong.length ? `; not usable: ${wrong.map(([name, one]) => `${name} (${one.detail})`).join(", ")}` : "";
    const device = found.device === "cuda" ? "GPU" : "processor";
    health.textContent = `pvlib ${found.version}, profile ${found.profile}, on the ${device}${lacking}`;
    health.className = found.status === "ok" ? "good" : "bad";
  } catch (error) {
    health.textContent = error.message;
    health.className = "bad";
  }
}

async function loadGraph() {
  try {
    const found = await ask("api/architecture");
    takeUsual(found.parameters);
    drawGraph(found);
  } catch (error) {
    at("inspector").replaceChildren(make("p", { class: "problem" }, `The module graph is not to be had: ${error.message}`));
  }
}

function start() {
  layTraits();
  at("clone").addEventListener("submit", speak);
  at("analyze").addEventListener("submit", analyze);
  at("calibrate").addEventListener("submit", calibrate);
  at("demo").addEventListener("click", takeDemo);
  at("file").addEventListener("change", choose);
  at("emotion-strength").addEventListener("input", (event) => {
    at("strength").textContent = Number(event.target.value).toFixed(2);
  });
  if (navigator.mediaDevices?.getUserMedia) at("record").addEventListener("click", record);
  else at("record").replaceWith(make("span", { class: "hint" }, "Recording here needs a page from this machine, or over https."));
  loadHealth();
  loadDemo().catch((error) => tell("problem", error));
  loadGraph();
}

start();
