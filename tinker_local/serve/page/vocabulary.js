// Vocabulary of a model: token ids -> pieces, each [text, whether it is a mark]. Asked for once, in batches.

import { post } from "/page/server.js";

const MOST = 4096; // tokens of a request
const known = new Map();

export class Vocabulary {
  static of(model) {
    if (!known.has(model)) known.set(model, new Vocabulary(model));
    return known.get(model);
  }

  constructor(model) {
    this.model = model;
    this.pieces = new Map();
  }

  // Have the pieces of these tokens here.
  async learn(ids) {
    const unknown = [...new Set(ids)].filter((id) => !this.pieces.has(id));
    for (let at = 0; at < unknown.length; at += MOST) {
      const tokens = unknown.slice(at, at + MOST);
      const { pieces } = await post("/token_pieces", { model: this.model, tokens });
      tokens.forEach((id, i) => this.pieces.set(id, pieces[i]));
    }
  }

  // Put what is shown of a token into an element. Tokens are not trusted: they become text, never markup.
  show(id, element, oneLine = false) {
    const parts = this.pieces.get(id) ?? [[`${id}`, true]];
    for (const [text, isMark] of parts) {
      if (oneLine && !isMark && (text === "\n" || text === "\t")) continue;
      if (isMark) {
        const mark = document.createElement("i");
        mark.className = "tl-m";
        mark.textContent = text;
        element.append(mark);
      } else {
        element.append(text);
      }
    }
  }

  label(id) {
    return (this.pieces.get(id) ?? [[`${id}`]]).map(([text]) => text).join("").trim() || "space";
  }
}
