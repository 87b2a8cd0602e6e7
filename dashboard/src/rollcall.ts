// When the page asks who is there: a broker may lose, or never give, a retained message. No I/O, and no clock of its own.

/** Nobody asks more often than this. */
const EVERY_MS = 5_000;
/** Documents of one party come one after the other: what is missing for less long is on its way. */
const ON_ITS_WAY_MS = 1_000;
/** Who is gone for good is asked for ever more rarely. */
const LONGEST_MS = 300_000;

export class RollCall {
  private since = new Map<string, number>();
  private askedFor = new Set<string>();
  private last = -Infinity;
  private wait = EVERY_MS;

  /** Takes note of a roll call that was asked without a reason, at the start. */
  asked(now: number): void {
    this.last = now;
  }

  /** Whether to ask now, which it takes for done; `missing` names documents that what is there speaks of. */
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
