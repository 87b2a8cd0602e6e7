// When the page asks for a roll call, as brokers may lose or never deliver retained messages. No I/O, no own clock.

/** Shortest time between two roll calls, ms. */
const EVERY_MS = 5_000;
/** A document that is missing for less than this is probably on its way, ms. */
const ON_ITS_WAY_MS = 1_000;
/** Longest time between two roll calls for the same missing documents, ms: the interval doubles up to this. */
const LONGEST_MS = 300_000;

export class RollCall {
  private since = new Map<string, number>();
  private askedFor = new Set<string>();
  private last = -Infinity;
  private wait = EVERY_MS;

  /** Notes a roll call that was asked for at the start, when nothing was known to be missing. */
  asked(now: number): void {
    this.last = now;
  }

  /** Returns whether to ask for a roll call now, and notes that it was asked for; `missing` are names of documents. */
  due(missing: ReadonlySet<string>, now: number): boolean {
    this.since = new Map([...missing].map((name) => [name, this.since.get(name) ?? now]));
    const lasting = new Set([...this.since].filter(([, since]) => now - since >= ON_ITS_WAY_MS).map(([name]) => name));
    const isNew = [...lasting].some((name) => !this.askedFor.has(name));
    if (isNew) this.wait = EVERY_MS;
    if (lasting.size === 0 || now < this.last + this.wait) return false;
    this.wait = isNew ? EVERY_MS : Math.min(this.wait * 2, LONGEST_MS);
    this.last = now;
    this.askedFor = lasting;
    return true;
  }
}
