"use strict";
// The page of `padlite serve`. Talks to /v1/chat/completions like any client, and asks /page/models for the sliders.

const HUES = 8;
const find = (id) => document.getElementById(id);
const state = {
  key: "", models: [], turns: [], // turns: {said, sides: {personal, plain}}, the text of each answer
  wishes: {}, strength: 1, temperature: 0, running: null, queued: null,
};

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

async function ask(path, options = {}) {
  const headers = { ...(options.body && { "content-type": "application/json" }), ...(state.key && { authorization: `Bearer ${state.key}` }) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  if (response.status === 401) {
    find("unlock").hidden = false;
    find("key").focus();
  }
  const body = await response.json().catch(() => null);
  throw new Error(body?.error?.message ?? `the server answered ${response.status}`);
}

// What can be chosen, and the sliders

const model = () => state.models.find((each) => each.name === find("model").value);
const hue = (element, at) => element.style.setProperty("--hue", `var(--d${at % HUES})`);

async function loadModels() {
  state.models = (await (await ask("page/models")).json()).models;
  find("model").replaceChildren(...state.models.map((each) => make("option", { value: each.name, textContent: each.name })));
  showSliders();
}

function showSliders() {
  const chosen = model();
  if (!chosen) return;
  Object.assign(state, { wishes: { ...chosen.weights }, strength: chosen.strength, temperature: chosen.temperature });
  find("sliders").replaceChildren(...chosen.dimensions.map((dimension, at) => {
    const wish = slider({ ...dimension, id: `wish-${at}`, label: `${at + 1} ${dimension.name}`, low: -1, high: 1, step: 0.1,
      value: { ...chosen.told, ...state.wishes }[dimension.name] ?? 0, change: (value) => { state.wishes[dimension.name] = value; } });
    hue(wish, at);
    return wish;
  }));
  find("decoding").replaceChildren(
    slider({ id: "strength", label: "Strength", description: "how hard your wishes push; 0 is the model as it is", low: 0, high: 3,
      step: 0.1, value: state.strength, change: (value) => { state.strength = value; } }),
    slider({ id: "temperature", label: "Variety", description: "above 0 each answer turns out another", low: 0, high: 1.5,
      step: 0.1, value: state.temperature, change: (value) => { state.temperature = value; } }),
  );
}

function slider({ id, label, description, low, high, step, value, change }) {
  const shown = make("span", { className: "value" }); // the slider itself says its value
  shown.setAttribute("aria-hidden", "true");
  const input = make("input", { id, type: "range", min: Math.min(low, value), max: Math.max(high, value), step, value });
  input.setAttribute("aria-describedby", `${id}-note`);
  const show = () => {
    fill(input);
    shown.textContent = Number(input.value).toFixed(1);
  };
  show();
  input.addEventListener("show", show);
  input.addEventListener("input", () => {
    show();
    change(Number(input.value));
    soon();
  });
  return make("div", { className: "wish" }, make("label", { htmlFor: id, textContent: label }), shown, input,
    make("p", { id: `${id}-note`, className: "note", textContent: description }));
}

function fill(input) { // the track is coloured between 0 and the value, whichever is left
  const place = (value) => (value - input.min) / (input.max - input.min);
  const [from, to] = [place(0), place(input.value)].sort((a, b) => a - b);
  input.style.setProperty("--from", from);
  input.style.setProperty("--to", to);
}

function setWishes(weights, as = "input") { // as "show" they are shown, and not wished
  model().dimensions.forEach((dimension, at) => {
    const input = find(`wish-${at}`);
    input.value = weights[dimension.name] ?? 0;
    input.dispatchEvent(new Event(as));
  });
}

function hear(chosen, weights, asked) { // what a text in the profile stands for is known once the model has read it
  chosen.told = Object.fromEntries(Object.entries(weights).filter(([name]) => !(name in asked)));
  if (chosen === model()) setWishes({ ...chosen.told, ...state.wishes }, "show");
}

function reset() {
  state.wishes = { ...model().weights };
  setWishes({ ...model().told, ...state.wishes }, "show");
  soon();
}

// Answers

let delay = 0;
function soon() { // a moved slider: the last message is answered again, with what counts now
  clearTimeout(delay);
  if (state.turns.length) delay = setTimeout(answer, 150);
}

function messages(side) {
  return state.turns.flatMap((turn, at) => {
    const said = { role: "user", content: turn.said };
    const heard = turn.sides[side] ?? turn.sides.personal;
    return at === state.turns.length - 1 ? [said] : [said, { role: "assistant", content: heard || "…" }];
  });
}

async function answer() {
  clearTimeout(delay);
  stop();
  const run = { controller: new AbortController() };
  state.running = run;
  const turn = state.turns.at(-1);
  const sides = find("compare").checked && model().dimensions.length ? ["personal", "plain"] : ["personal"];
  turn.sides = {};
  turn.place.replaceChildren();
  const panels = Object.fromEntries(sides.map((side) => [side, panel(side, turn.place)]));
  find("problem").textContent = "";
  find("status").textContent = "Answering";
  showButtons();
  const outcomes = await Promise.allSettled(sides.map((side) => stream(side, turn, panels[side], run)));
  for (const side of sides) panels[side].box.setAttribute("aria-busy", "false");
  if (state.running !== run) return; // another answer took its place
  state.running = null;
  const failed = outcomes.find((outcome) => outcome.status === "rejected" && outcome.reason.name !== "AbortError");
  if (failed) find("problem").textContent = failed.reason.message;
  if (failed && !turn.sides.personal) takeBack(turn);
  const stopped = run.controller.signal.aborted ? "Stopped. " : "";
  find("status").textContent = `${stopped}${turn.sides.personal ?? ""} ${panels.personal.note.textContent}`;
  showButtons();
}

function takeBack(turn) { // a message that can't be answered would stand in the way of all that follow
  state.turns.pop();
  turn.place.closest("li").remove();
  if (!find("text").value) find("text").value = turn.said;
}

function stop() {
  state.running?.controller.abort();
}

function panel(side, place) {
  const text = make("p"), note = make("p", { className: "note" });
  const box = make("article", { className: `answer ${side}` }, make("h3", { textContent: side === "plain" ? "Plain: the model as it is" : "Personal" }), text, note);
  box.setAttribute("aria-busy", "true");
  place.append(box);
  box.scrollIntoView({ block: "nearest" });
  return { box, text, note, word: null, changed: 0 };
}

async function stream(side, turn, place, run) {
  const strength = side === "plain" ? 0 : state.strength;
  const chosen = model();
  const body = { model: chosen.name, messages: messages(side), stream: true, temperature: state.temperature,
    padlite: { weights: { ...state.wishes }, strength, trace: true } };
  const response = await ask("v1/chat/completions", { method: "POST", body: JSON.stringify(body), signal: run.controller.signal });
  turn.sides[side] = "";
  for await (const event of events(response.body)) {
    if (event.position) {
      place.note.textContent = `Waiting: number ${event.position} in line`;
      continue;
    }
    if (event.error) throw new Error(event.error.message);
    const choice = event.choices[0];
    if (choice?.padlite?.weights) hear(chosen, choice.padlite.weights, body.padlite.weights);
    if (choice?.delta.content) {
      turn.sides[side] += choice.delta.content;
      show(place, choice.delta.content, choice.padlite?.trace ?? []);
    }
  }
  place.note.textContent = side === "plain" ? "" : counted(place.changed);
}

const counted = (number) => number === 0 ? "Your wishes changed no word." : `Your wishes changed ${number} ${number === 1 ? "word" : "words"}.`;

async function* events(body) { // server-sent events; a comment may tell the position in the queue
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const waiting = /^: position (\d+)/.exec(block);
      if (waiting) yield { position: Number(waiting[1]) };
      else if (block.startsWith("data: ") && block !== "data: [DONE]") yield JSON.parse(block.slice(6));
    }
  }
}

// Words, and why they were chosen

function show(place, text, traces) {
  let shown = 0;
  for (const trace of traces) {
    append(place, trace.text, trace);
    shown += trace.text.length;
  }
  append(place, text.slice(shown), null);
}

function append(place, text, trace) { // tokens are parts of words: a word begins where its text begins with a space
  if (!place.word || /^\s/.test(text)) {
    const blank = /^\s*/.exec(text)[0];
    place.word = make("span", { className: "word" });
    place.word.traces = [];
    place.text.append(blank, place.word);
    text = text.slice(blank.length);
  }
  const mark = place.word.querySelector("sup");
  if (mark) mark.before(text);
  else place.word.append(text);
  if (trace) place.word.traces.push(trace);
  if (trace?.changed && !mark) colour(place, trace);
}

function colour(place, trace) {
  const word = place.word, at = model().dimensions.findIndex((dimension) => dimension.name === trace.changed_by);
  place.changed += 1;
  word.classList.add("changed");
  word.tabIndex = 0;
  word.setAttribute("role", "button");
  word.setAttribute("aria-haspopup", "true");
  if (at >= 0) hue(word, at);
  word.append(make("sup", { textContent: at >= 0 ? at + 1 : "·" }), make("span", { className: "hidden", textContent: trace.changed_by ? ` (because of ${trace.changed_by})` : " (drawn)" }));
}

function explain(word) {
  const why = find("why");
  why.replaceChildren(...word.traces.filter((trace) => word.traces.length === 1 || trace.changed || !word.classList.contains("changed")).map(table));
  why.hidden = false;
  word.setAttribute("aria-describedby", "why");
  const at = word.getBoundingClientRect(), own = why.getBoundingClientRect();
  const below = at.bottom + own.height + 8 < innerHeight;
  why.style.left = `${Math.max(8, Math.min(at.left, innerWidth - own.width - 8))}px`;
  why.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - own.height - 6)}px`;
}

function table(trace) {
  const names = Object.keys(trace.candidates[0]?.contributions ?? {}).filter((name) => trace.candidates.some((each) => each.contributions[name]));
  const signed = (number) => (number >= 0 ? "+" : "−") + Math.abs(number).toFixed(2);
  const rows = trace.candidates.map((each, at) => {
    const total = Object.values(each.contributions).reduce((sum, value) => sum + value, each.base_logprob);
    const kind = at === trace.chosen ? "chosen" : "";
    const label = make("th", { scope: "row", textContent: `“${each.text}”${at === trace.chosen ? " ←" : ""}` });
    return make("tr", { className: kind }, label, ...[signed(each.base_logprob), ...names.map((name) => signed(each.contributions[name])), signed(total)]
      .map((textContent) => make("td", { textContent })));
  });
  const head = make("tr", {}, ...["could have been", "model", ...names, "together"].map((textContent) => make("th", { scope: "col", textContent })));
  const instead = trace.candidates[trace.base_choice]?.text;
  const line = trace.changed ? `“${trace.candidates[trace.chosen].text}” instead of “${instead}”${trace.changed_by ? `, because of ${trace.changed_by}` : ""}` : "the model's own choice";
  return make("div", {}, make("p", { textContent: line }), make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

function hideWhy() {
  document.querySelector("[aria-describedby=why]")?.removeAttribute("aria-describedby");
  find("why").hidden = true;
}

// Buttons and keys

function showButtons() {
  find("stop").disabled = !state.running;
  find("again").disabled = !state.turns.length;
}

function send() {
  const said = find("text").value.trim();
  if (!said || !model()) return;
  stop();
  find("text").value = "";
  const place = make("div", { className: "answers" });
  const item = make("li", {}, make("p", { className: "said", textContent: said }), place);
  state.turns.push({ said, sides: {}, place });
  find("turns").append(item);
  answer();
}

function anew() {
  stop();
  clearTimeout(delay);
  state.turns = [];
  find("turns").replaceChildren();
  find("problem").textContent = "";
  find("status").textContent = "A new chat";
  showButtons();
  find("text").focus();
}

const failing = (error) => { find("problem").textContent = error.message; };
find("ask").addEventListener("submit", (event) => { event.preventDefault(); send(); });
find("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { if (find("why").hidden) stop(); else hideWhy(); }
});
find("stop").addEventListener("click", () => { stop(); find("text").focus(); });
find("again").addEventListener("click", answer);
find("anew").addEventListener("click", anew);
find("zero").addEventListener("click", () => setWishes({}));
find("reset").addEventListener("click", reset);
find("model").addEventListener("change", () => { showSliders(); soon(); });
find("compare").addEventListener("change", soon);
find("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  state.key = find("key").value;
  find("unlock").hidden = true;
  find("problem").textContent = "";
  loadModels().then(() => find("text").focus(), failing);
});
for (const [begin, end] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
  find("turns").addEventListener(begin, (event) => { const word = event.target.closest(".word"); if (word?.traces.length) explain(word); });
  find("turns").addEventListener(end, hideWhy);
}
loadModels().catch(failing);
