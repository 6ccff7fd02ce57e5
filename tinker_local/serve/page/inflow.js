// Tokens on their way from a stream to their cards.

import { idsOf } from "/page/text.js";

// Take tokens as they come; show them once their texts are known, many at a time.
export class Inflow {
  constructor(vocabulary) {
    this.vocabulary = vocabulary;
    this.waiting = [];
  }

  add(card, tokens) {
    this.waiting.push([card, tokens]);
    this.flowing ??= this.#flow();
  }

  async #flow() {
    while (this.waiting.length) {
      const taken = this.waiting.splice(0);
      await this.vocabulary.learn(taken.flatMap(([, tokens]) => idsOf(tokens)));
      for (const [card, tokens] of taken) tokens.forEach((token) => card.append(token));
    }
    this.flowing = undefined;
  }
}
