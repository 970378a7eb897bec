// The page: what is said goes out by POST, and all that is shown comes back as events, each with its message's key.
// Nothing is ever parsed as HTML: text nodes and attributes only.

const CHAT = /^[A-Za-z0-9_-]{24,64}$/;
const LABELS = {
  vary: "Vary",
  seed: "Same seed",
  why: "Why?",
  recipe: "Recipe",
  train: "Train from these",
  cancel: "Cancel",
};
const SAID = {
  vary: "Vary it",
  seed: "The same seed again",
  why: "Why this?",
  recipe: "Show the recipe",
  train: "Train from these",
  cancel: "Cancel",
};
const HIDDEN_FOR = 300_000; // ms after which a page that nobody looks at lets its stream go
const SHOWN_LOSSES = 200;
const MAX_FILES = Number(document.body.dataset.maxFiles);
const MAX_BYTES = Number(document.body.dataset.maxBytes);

const $ = (id) => document.getElementById(id);
const turns = new Map(); // key of a message: its turn
let chat = "";
let source = null;
let reconnecting = 0;
let attached = []; // {file, url, node}
let sending = Promise.resolve(); // words go out in the order in which they were said

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function randomId(bytes) {
  const raw = crypto.getRandomValues(new Uint8Array(bytes));
  return btoa(String.fromCharCode(...raw)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function about(seconds) {
  if (seconds < 90) return `about ${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min`;
  return `about ${(seconds / 3600).toFixed(1)} h`;
}

function remembered() {
  try {
    return localStorage.getItem("atelier.chat") ?? "";
  } catch {
    return "";
  }
}

function remember() {
  try {
    localStorage.setItem("atelier.chat", chat);
  } catch {
    // the address still has it
  }
}

// --- the conversation

function openChat() {
  const said = location.hash.slice(1);
  const wanted = [said, remembered()].find((id) => CHAT.test(id)) ?? randomId(24);
  if (wanted === chat) return;
  chat = wanted;
  remember();
  if (said !== chat) history.replaceState(null, "", `#${chat}`);
  turns.clear();
  $("log").replaceChildren();
  $("empty").hidden = false;
  connect();
}

function connect() {
  clearTimeout(reconnecting);
  source?.close();
  const stream = new EventSource(`/api/chat/${chat}/events`);
  source = stream;
  const on = (kind, act) =>
    stream.addEventListener(kind, (event) => {
      if (stream === source) act(JSON.parse(event.data));
    });
  on("message", (data) => showMessage(data.key, data));
  on("progress", (data) => showProgress(data.key, data));
  on("reply", (data) => showReply(data.key, data));
  on("shelf", readShelf);
  on("ready", () => {
    $("line").textContent = "";
  });
  stream.onerror = () => {
    if (stream !== source) return;
    $("line").textContent = "Reconnecting…";
    if (stream.readyState === EventSource.CLOSED) reconnecting = setTimeout(connect, 2000 + 3000 * Math.random());
  };
}

function turnOf(key) {
  let turn = turns.get(key);
  if (turn) return turn;
  const asked = make("div", { class: "asked" });
  const answer = make("div", { class: "answer" });
  turn = { key, asked, answer, node: make("article", { class: "turn" }, asked, answer), job: null, reply: "" };
  turns.set(key, turn);
  $("log").append(turn.node);
  $("empty").hidden = true;
  return turn;
}

function showMessage(key, { text, files, press, urls = [] }) {
  const turn = turnOf(key);
  if (turn.asked.childElementCount) return;
  const kept = files.map((name, n) =>
    urls[n] ? make("img", { src: urls[n], alt: name, title: name }) : make("span", { class: "chip" }, name),
  );
  const few = kept.slice(0, 12);
  if (kept.length > few.length) few.push(make("span", { class: "chip" }, `and ${kept.length - few.length} more`));
  const words = press ? make("p", { class: "pressed" }, SAID[press.verb] ?? press.verb) : text && make("p", {}, text);
  turn.asked.append(
    make("div", { class: press ? "bubble small" : "bubble" }, few.length ? make("div", { class: "pinned" }, ...few) : null, words || null),
  );
  turn.state = make("p", { class: "state", role: "status" });
  turn.asked.append(turn.state);
  if (!turn.reply && !turn.job) startJob(turn);
}

// --- progress

function startJob(turn) {
  const job = {
    title: make("span", { class: "job-title" }, "Thinking…"),
    left: make("span", { class: "job-left" }),
    bar: make("progress", { max: 1, "aria-label": "Progress" }),
    note: make("p", { class: "fine" }),
    facts: make("p", { class: "fine" }),
    preview: make("img", { class: "preview", alt: "Preview of the picture so far", hidden: true }),
    samples: make("div", { class: "samples", hidden: true }),
    losses: [],
    chart: chart(),
    cancel: make("button", { type: "button", class: "button", onclick: () => press("cancel", turn.key, 0) }, LABELS.cancel),
  };
  job.node = make(
    "div",
    { class: "job", "aria-live": "off" },
    job.preview,
    make("div", { class: "job-head" }, job.title, job.left),
    job.bar,
    job.note,
    make("div", { class: "job-foot" }, make("div", { class: "job-facts" }, job.facts, job.chart), job.cancel),
    job.samples,
  );
  job.cancel.hidden = true; // until there is a job that can be stopped
  turn.job = job;
  turn.answer.replaceChildren(job.node);
}

function chart() {
  const name = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(name, "svg");
  svg.setAttribute("viewBox", "0 0 200 40");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "chart");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "Loss so far");
  svg.append(document.createElementNS(name, "polyline"));
  svg.toggleAttribute("hidden", true);
  return svg;
}

function drawLosses({ losses, chart }) {
  if (losses.length < 2) return;
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const at = (loss, n) => `${(n / (losses.length - 1)) * 200},${37 - ((loss - low) / (high - low || 1)) * 34}`;
  chart.firstChild.setAttribute("points", losses.map(at).join(" "));
  chart.toggleAttribute("hidden", false);
}

function showProgress(key, data) {
  const turn = turnOf(key);
  if (turn.reply) return;
  if (!turn.job) startJob(turn);
  const { job } = turn;
  const waits = data.stage === "queued";
  const stage = data.stage.charAt(0).toUpperCase() + data.stage.slice(1);
  const queued = ["Queued", data.place && `place ${data.place}`, data.left !== null && about(data.left)];
  job.title.textContent = waits ? queued.filter(Boolean).join(", ") : stage;
  job.left.textContent = !waits && data.left !== null ? `${about(data.left)} left` : "";
  if (waits || !data.steps) job.bar.removeAttribute("value");
  else job.bar.value = (data.part - 1 + data.step / data.steps) / data.parts;
  const facts = [
    !waits && data.steps && `step ${data.step} of ${data.steps}`,
    data.parts > 1 && `picture ${data.part} of ${data.parts}`,
    data.loss !== null && `loss ${data.loss.toFixed(4)}`,
  ].filter(Boolean);
  job.facts.textContent = facts.join(" · ");
  job.cancel.hidden = false;
  if (data.stage === "starting") job.note.textContent = data.text; // what was chosen for a training
  if (data.preview) {
    job.preview.src = data.preview;
    job.preview.hidden = false;
  }
  if (data.loss !== null) {
    job.losses = [...job.losses, data.loss].slice(-SHOWN_LOSSES);
    drawLosses(job);
  }
  if (data.samples.length) {
    const pictures = data.samples.map((url, n) => make("img", { src: url, alt: `Sample ${n + 1}` }));
    job.samples.replaceChildren(make("p", { class: "fine" }, "Latest samples"), ...pictures);
    job.samples.hidden = false;
  }
}

// --- answers

function showReply(key, data) {
  const turn = turnOf(key);
  const said = JSON.stringify(data);
  if (turn.reply === said) return;
  turn.reply = said;
  turn.job = null;
  const parts = data.error ? [trouble(data.error)] : [words(data.text, data.pictures.length > 0)];
  if (data.pictures.length) parts.push(gallery(key, data));
  if (data.files?.length) parts.push(downloads(data.files));
  if (data.lora) parts.push(learnt(data.lora));
  const rest = data.actions.filter((verb) => !data.pictures.length || (verb === "train" && data.pictures.length > 1));
  if (rest.length) parts.push(make("div", { class: "actions" }, ...rest.map((verb) => action(verb, key, 0))));
  turn.answer.replaceChildren(...parts);
  if (document.hidden) document.title = "• Atelier";
}

function words(text, isCaption) {
  const [lead, ...more] = text.split("\n");
  if (!isCaption || !more.length) return make("p", { class: "words" }, text);
  return make("div", { class: "words" }, make("p", {}, lead), make("p", { class: "fine" }, more.join("\n")));
}

function trouble({ code, message, hint, incident }) {
  if (code === "cancelled") return make("p", { class: "words" }, message); // as was asked
  return make(
    "div",
    { class: "trouble" },
    make("p", { class: "trouble-what" }, message),
    hint ? make("p", {}, hint) : null,
    incident ? make("p", { class: "fine" }, `Incident ${incident}`) : null,
  );
}

function gallery(key, { pictures, actions }) {
  const several = pictures.length > 1;
  const buttons = actions.filter((verb) => verb !== "train" || !several); // of several, all are learnt from
  const figures = pictures.map((picture, n) => {
    const name = several ? `Picture ${n + 1} of ${pictures.length}` : "The picture";
    const size = picture.width ? `${picture.width} × ${picture.height}` : "";
    const facts = [size, picture.seed !== null && `seed ${picture.seed}`].filter(Boolean).join(" · ");
    const image = make("img", { src: picture.url, alt: picture.recipe.prompt ?? name, width: picture.width, height: picture.height });
    const open = () => view(picture.url, facts, image.alt);
    return make(
      "figure",
      { class: "picture" },
      make("button", { type: "button", class: "frame", "aria-label": `${name}: open full size`, onclick: open }, image),
      make(
        "figcaption",
        {},
        make("div", { class: "actions" }, ...buttons.map((verb) => action(verb, key, n, several ? `, picture ${n + 1}` : ""))),
        make("span", { class: "fine" }, facts),
      ),
    );
  });
  return make("div", { class: several ? "gallery several" : "gallery" }, ...figures);
}

function downloads(files) {
  const links = files.map(({ name, size, url }) => {
    const large = size < 1e5 ? `${Math.ceil(size / 1e3)} kB` : `${(size / 1e6).toFixed(1)} MB`;
    return make("a", { class: "button", href: url, download: name }, `${name} · ${large}`);
  });
  return make("div", { class: "actions" }, ...links);
}

function action(verb, key, picture, which = "") {
  let last = 0;
  const once = () => {
    if (Date.now() - last > 800) press(verb, key, picture); // a double click means one
    last = Date.now();
  };
  const label = LABELS[verb] ?? verb;
  return make("button", { type: "button", class: "button", "aria-label": which && label + which, onclick: once }, label);
}

function learnt({ name, kind, trigger }) {
  const image = make("img", { alt: "", hidden: true });
  const title = make("strong", {}, name);
  const use = make("button", { type: "button", class: "button main", onclick: () => insert(title.textContent) }, "Use it");
  readShelf().then((loras) => {
    const card = loras.find((lora) => lora.name === name);
    if (!card) return;
    title.textContent = card.title;
    if (card.preview) image.src = card.preview;
    image.hidden = !card.preview;
  });
  return make(
    "div",
    { class: "learnt" },
    image,
    make("div", {}, title, make("p", { class: "fine" }, `${kind} · trigger ${trigger}`)),
    use,
  );
}

function view(url, facts, alt) {
  $("viewer-picture").src = url;
  $("viewer-picture").alt = alt;
  $("viewer-facts").textContent = facts;
  $("viewer-save").href = url;
  $("viewer").showModal();
}

// --- sending

function press(verb, of, picture) {
  post({ text: "", press: { verb, of, picture } }, []);
}

function post(said, files) {
  const id = randomId(12);
  const body = { ...said, chat, id };
  const key = `web:${chat}.${id}`;
  const urls = files.map(({ file, url }) => (file.type.startsWith("image/") ? url : ""));
  showMessage(key, { text: said.text, files: files.map(({ file }) => file.name), press: said.press, urls });
  toEnd();
  const send = () => deliver(turns.get(key), request(body, files), () => restore(said.text, files));
  if (said.press) send();
  else sending = sending.then(send);
}

function request(body, files) {
  if (!files.length) {
    const json = JSON.stringify(body);
    const headers = { "Content-Type": "application/json" };
    return { method: "POST", headers, body: json, keepalive: json.length < 20_000 };
  }
  const form = new FormData();
  for (const name of ["text", "chat", "id"]) form.append(name, body[name]);
  for (const { file } of files) form.append("files", file, file.name);
  return { method: "POST", body: form };
}

// Tried until it is taken or refused, always with the same id, so that it is taken once.
async function deliver(turn, options, giveBack) {
  for (let wait = 1; ; wait = Math.min(2 * wait, 30)) {
    const response = await fetch("/api/chat", options).catch(() => null);
    turn.state.textContent = "";
    if (response?.ok) return;
    if (response && response.status < 500 && ![408, 429].includes(response.status)) {
      const said = await response.json().catch(() => ({}));
      refuse(turn, said.error ?? { message: `It was refused (${response.status}).`, hint: "" }, giveBack);
      return;
    }
    const seconds = Number(response?.headers.get("Retry-After")) || wait;
    const why = response?.status === 429 ? "The studio is full" : "Not sent yet";
    turn.state.textContent = `${why}; trying again in ${Math.ceil(seconds)} s…`;
    await new Promise((resolve) => {
      setTimeout(resolve, seconds * 1000);
      if (!response) addEventListener("online", resolve, { once: true });
    });
  }
}

function refuse(turn, error, giveBack) {
  turn.job = null;
  turn.reply = "refused";
  const again = make("button", { type: "button", class: "button", onclick: giveBack }, "Write it again");
  turn.answer.replaceChildren(trouble(error), make("div", { class: "actions" }, again));
}

function restore(text, files) {
  $("words").value = text;
  attach(files.map(({ file }) => file));
  grow();
  $("words").focus();
}

function submit() {
  const text = $("words").value.trim();
  if (!text && !attached.length) return;
  const files = attached;
  attached = [];
  showTray();
  $("words").value = "";
  $("warning").textContent = "";
  grow();
  post({ text }, files);
}

// --- the composer

function attach(files) {
  $("warning").textContent = "";
  for (const file of files) {
    const bytes = attached.reduce((sum, one) => sum + one.file.size, file.size);
    if (attached.length >= MAX_FILES || bytes > MAX_BYTES - 100_000) {
      $("warning").textContent = `A message takes ${MAX_FILES} files and ${Math.floor(MAX_BYTES / 1e6)} MB; the rest was left out.`;
      break;
    }
    attached.push({ file, url: file.type.startsWith("image/") ? URL.createObjectURL(file) : "" });
  }
  showTray();
}

function showTray() {
  const items = attached.map((one) => {
    const remove = () => {
      attached = attached.filter((other) => other !== one);
      URL.revokeObjectURL(one.url);
      showTray();
      $("words").focus();
    };
    return make(
      "li",
      {},
      one.url ? make("img", { src: one.url, alt: one.file.name, title: one.file.name }) : make("span", { class: "chip" }, one.file.name),
      make("button", { type: "button", class: "remove", "aria-label": `Remove ${one.file.name}`, onclick: remove }, "×"),
    );
  });
  $("tray").replaceChildren(...items);
  $("tray").hidden = !items.length;
  ready();
}

function ready() {
  $("send").disabled = !$("words").value.trim() && !attached.length;
}

function grow() {
  const box = $("words");
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight, 220)}px`;
  ready();
}

function insert(title) {
  closeShelf();
  $("details").close();
  const box = $("words");
  const [before, after] = [box.value.slice(0, box.selectionStart), box.value.slice(box.selectionEnd)];
  const lead = before && !/\s$/.test(before) ? " " : "";
  const trail = after && !/^\s/.test(after) ? " " : "";
  box.value = before + lead + title + trail + after;
  box.focus();
  box.selectionStart = box.selectionEnd = (before + lead + title).length;
  grow();
}

// --- the shelf

async function readShelf() {
  const response = await fetch("/api/loras").catch(() => null);
  if (!response?.ok) return [];
  const loras = await response.json();
  $("cards").replaceChildren(...loras.map(card));
  $("shelf-note").textContent = loras.length
    ? "Click one to put its name into your message."
    : "None yet. Drop 4 to 30 pictures and say: train a character called Pip.";
  showExamples(loras);
  return loras;
}

function card(lora) {
  return make(
    "li",
    { class: "card" },
    make(
      "button",
      { type: "button", class: "card-use", title: lora.summary, onclick: () => insert(lora.title) },
      lora.preview ? make("img", { src: lora.preview, alt: "", loading: "lazy" }) : make("span", { class: "no-picture" }),
      make(
        "span",
        { class: "card-text" },
        make("span", { class: "card-title" }, lora.title),
        make("span", { class: "fine" }, `${lora.kind} · ${lora.trigger}`),
        make("span", { class: "fine" }, `weight ${lora.weight}`),
        make("span", { class: "fine" }, lora.licence || "no licence"),
        lora.commercial ? null : make("span", { class: "fine" }, "not for commercial use"),
      ),
    ),
    make("button", { type: "button", class: "button", "aria-label": `Details of ${lora.title}`, onclick: () => showDetails(lora) }, "Details"),
  );
}

async function showDetails(lora) {
  $("details-title").textContent = lora.title;
  const fact = (name, value) => [make("dt", {}, name), make("dd", {}, value)];
  const pictures = make("div", { class: "training" });
  $("details-body").replaceChildren(
    make(
      "div",
      { class: "details-top" },
      lora.preview ? make("img", { src: lora.preview, alt: `Preview of ${lora.title}` }) : null,
      make(
        "div",
        {},
        make("p", {}, lora.summary),
        make(
          "dl",
          {},
          ...fact("Kind", lora.kind),
          ...fact("Name", lora.name),
          ...fact("Trigger", lora.trigger),
          ...fact("Weight", String(lora.weight)),
          ...fact("Licence", lora.licence || "none said"),
          ...fact("Commercial use", lora.commercial ? "allowed" : "not allowed"),
          ...fact("Made", lora.shipped ? "comes with the studio" : "trained here"),
        ),
      ),
    ),
    make("button", { type: "button", class: "button main", onclick: () => insert(lora.title) }, "Use it"),
    make("h3", {}, "Learnt from"),
    pictures,
  );
  if (!$("details").open) $("details").showModal();
  const response = await fetch(`/api/loras/${encodeURIComponent(lora.name)}`).catch(() => null);
  const urls = response?.ok ? (await response.json()).pictures : [];
  pictures.replaceChildren(
    ...(urls.length
      ? urls.map((url, n) => make("img", { src: url, alt: `Training picture ${n + 1}`, loading: "lazy" }))
      : [make("p", { class: "fine" }, "Its pictures are not kept here.")]),
  );
}

function showExamples(loras) {
  const titled = (kind) => loras.find((lora) => lora.kind === kind)?.title;
  const [character, style, product] = ["character", "style", "product"].map(titled);
  const sentences = [
    character ? `${character} at the beach` : "a fox in the snow",
    style ? `a red mug on a podium in ${style} style` : "a red mug on a podium",
    product ? `four pictures of ${product} on a table` : "Which LoRAs are there?",
  ];
  $("examples").replaceChildren(
    ...sentences.map((text) =>
      make("li", {}, make("button", { type: "button", class: "example", onclick: () => post({ text }, []) }, text)),
    ),
  );
}

function openShelf() {
  document.body.classList.add("shelf-open");
  $("veil").hidden = false;
  $("open-shelf").setAttribute("aria-expanded", "true");
  for (const id of ["bar", "talk"]) $(id).inert = true;
  $("close-shelf").focus();
}

function closeShelf() {
  if (!document.body.classList.contains("shelf-open")) return;
  document.body.classList.remove("shelf-open");
  $("veil").hidden = true;
  $("open-shelf").setAttribute("aria-expanded", "false");
  for (const id of ["bar", "talk"]) $(id).inert = false;
  $("open-shelf").focus();
}

// --- the end of the log stays in sight, unless one has scrolled up

let atEnd = true;

function toEnd() {
  atEnd = true;
  $("scroller").scrollTop = $("scroller").scrollHeight;
}

$("scroller").addEventListener("scroll", () => {
  const { scrollTop, clientHeight, scrollHeight } = $("scroller");
  atEnd = scrollHeight - scrollTop - clientHeight < 120;
});
const follow = new ResizeObserver(() => {
  if (atEnd) toEnd();
});
follow.observe($("log"));
follow.observe($("scroller"));

// --- what a person does

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
$("words").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
$("words").addEventListener("input", grow);
$("words").addEventListener("paste", (event) => {
  if (!event.clipboardData?.files.length) return;
  event.preventDefault();
  attach(event.clipboardData.files);
});
$("attach").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => {
  attach($("files").files);
  $("files").value = "";
});
$("new").addEventListener("click", () => {
  location.hash = randomId(24);
  $("words").focus();
});
$("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address holds the conversation
  $("words").focus();
});
$("open-shelf").addEventListener("click", openShelf);
$("close-shelf").addEventListener("click", closeShelf);
$("veil").addEventListener("click", closeShelf);
matchMedia("(min-width: 1000px)").addEventListener("change", closeShelf);
for (const id of ["viewer", "details"]) {
  $(`${id}-close`).addEventListener("click", () => $(id).close());
  $(id).addEventListener("click", (event) => {
    if (event.target === $(id)) $(id).close(); // the backdrop
  });
}
addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeShelf();
});
addEventListener("hashchange", openChat);

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  $("drop").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").hidden = true;
});
addEventListener("drop", (event) => {
  $("drop").hidden = true;
  if (!hasFiles(event)) return;
  event.preventDefault();
  attach(event.dataTransfer.files);
  $("words").focus();
});

let resting = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(resting);
  if (document.hidden) {
    resting = setTimeout(() => {
      clearTimeout(reconnecting);
      source?.close();
      source = null;
    }, HIDDEN_FOR);
  } else {
    document.title = "Atelier";
    if (!source) connect();
  }
});

showExamples([]);
readShelf();
grow();
openChat();
