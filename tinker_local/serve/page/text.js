// Tokens in colour. A token: {id, logprob, top: [[id, logprob], ...] best first, other?, change?}. Among them
// stand the pictures of a scored prompt: {picture, logprob: null, top: []}.

import { thumbnail } from "/page/pictures.js";
import { isPicture } from "/page/prompt.js";
import { CHANGES, DIFFERENCES, LEVELS, PROBABILITIES } from "/page/scale.js";

const EDGES = PROBABILITIES.map((probability) => -Math.log(probability));

function colour(token) {
  if (token.change !== undefined) {
    if (token.change === null) return "tl-none";
    const size = DIFFERENCES.filter((edge) => Math.abs(token.change) >= edge).length;
    return `tl-c${size && token.change < 0 ? "-" : ""}${size}`;
  }
  if (token.logprob === null) return "tl-none";
  const level = EDGES.findIndex((edge) => -token.logprob <= edge);
  return `tl-s${level < 0 ? EDGES.length : level}`;
}

export function legend(list, ofChanges) {
  const names = ofChanges ? CHANGES : LEVELS;
  const items = names.map((name, i) => {
    const item = document.createElement("li");
    const level = i - DIFFERENCES.length;
    item.className = ofChanges ? `tl-c${level}` : `tl-s${i}`;
    item.textContent = name;
    return item;
  });
  const said = document.createElement("li");
  said.className = "tl-said";
  said.textContent = ofChanges ? "log-probability, B − A" : "probability";
  list.replaceChildren(said, ...items);
  list.hidden = false;
}

// The log-probabilities of an answer or a chunk as tokens.
export function tokensOf({ tokens, token_logprobs, top_logprobs }) {
  return tokens.map((name, i) => ({
    id: idOf(name),
    logprob: token_logprobs[i],
    top: Object.entries(top_logprobs[i] ?? {})
      .map(([other, logprob]) => [idOf(other), logprob])
      .sort((one, other) => other[1] - one[1]),
  }));
}

// The tokens of a prompt's texts, and its pictures between them.
export function withPictures(tokens, prompt) {
  const texts = tokens.values();
  return prompt.map((item) => (isPicture(item) ? { picture: item, logprob: null, top: [] } : texts.next().value));
}

// Tokens without the pictures among them.
export function textOf(tokens) {
  return tokens.filter(({ picture }) => !picture);
}

function idOf(name) {
  return Number(name.slice("token_id:".length));
}

export function idsOf(tokens) {
  return tokens.flatMap((token) => [token.id, ...token.top.map(([id]) => id), ...(token.other?.top ?? []).map(([id]) => id)]);
}

// The element of a text: shows tokens, and moves a cursor over them by keys.
export class Text {
  constructor(element, vocabulary, onToken) {
    this.element = element;
    this.vocabulary = vocabulary;
    this.onToken = onToken;
    this.tokens = [];
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("mouseover", (event) => this.#tell("hover", event));
    element.addEventListener("focusin", (event) => this.#tell("focus", event));
    element.addEventListener("click", (event) => this.#tell("open", event));
  }

  append(token, ...classes) {
    const span = document.createElement("span");
    span.className = ["tl-t", colour(token), ...classes].join(" ");
    span.tabIndex = this.tokens.length ? -1 : 0;
    span.setAttribute("role", token.picture ? "group" : "button");
    if (token.picture) span.append(thumbnail(token.picture));
    else this.vocabulary.show(token.id, span);
    this.tokens.push(token);
    this.element.append(span);
  }

  span(i) {
    return this.element.children[i];
  }

  #tell(how, event) {
    const span = event.target.closest(".tl-t");
    if (span) this.onToken(how, [...this.element.children].indexOf(span), span);
  }

  #key(event) {
    const spans = this.element.children;
    const at = [...spans].indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: spans.length - 1 }[event.key];
    if (at < 0) return;
    if (to !== undefined && spans[to]) {
      spans[at].tabIndex = -1;
      spans[to].tabIndex = 0;
      spans[to].focus();
    } else if (["Enter", " ", "ArrowDown"].includes(event.key)) {
      this.onToken("open", at, spans[at]);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation(); // the box has keys of its own
  }
}
