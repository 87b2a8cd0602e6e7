// The answers that the bridge keeps: the newest ones, those of a filter or a search, and their pictures. No I/O.
import type { Done, Entry, HistoryState, Kept } from "./house-documents";

/** Which answers are wanted; empty fields exclude nothing. */
export type Filter = { task: string; source: string; words: string; hours: number };
export const EVERYTHING: Filter = { task: "", source: "", words: "", hours: 0 };

/** A query that is under way, or was answered. */
export type Query = {
  transaction: string;
  at: number;
  entries: Entry[];
  done?: Done;
  /** the older answers are added to those before them */
  adds: boolean;
};

/** Answers and pictures that are kept in the browser's memory; answers that are shown before older ones are asked for. */
const MOST = 400;
const FIRST = 60;
const MOST_PICTURES = 150;
const HOUR_MS = 3_600_000;

export class History {
  state?: HistoryState;
  filter: Filter = EVERYTHING;
  /** newest first */
  entries: Entry[] = [];
  /** whether the bridge has older ones that fit */
  more = false;
  /** the query of the list, and that of a search */
  listed?: Query;
  sought?: Query;
  /** the words of the search; empty if it was by a picture */
  soughtWords = "";
  /** id -> blob URL of the picture; "" while it is asked for */
  private readonly pictures = new Map<number, string>();
  private readonly wanted = new Set<number>();
  /** answers that are shown: new ones push the oldest out, which can be asked for again */
  private room = FIRST;

  /** Handles a new connection: what is kept is asked for again. */
  begin(): void {
    this.state = undefined;
  }

  told(state: HistoryState | undefined): void {
    if (state && state.answers === 0 && (this.state?.answers ?? 0) > 0) this.clear(); // somebody deleted everything
    this.state = state;
  }

  /** A new answer. */
  add(entry: Entry): void {
    if (!fits(entry, this.filter) || this.entries.some(({ id }) => id === entry.id)) return;
    const all = [entry, ...this.entries].sort(newest);
    this.entries = all.slice(0, this.room);
    this.more ||= all.length > this.room;
  }

  /** A part of what a query found. */
  found({ transaction, entries }: Kept): void {
    for (const query of [this.listed, this.sought])
      if (query?.transaction === transaction) query.entries.push(...entries);
  }

  /** The end of a query: the list changes at once, not piece by piece. */
  finished(done: Done): void {
    if (this.sought?.transaction === done.transaction) {
      this.sought.done = done;
      this.sought.entries.sort((a, b) => (b.fits ?? 0) - (a.fits ?? 0));
    }
    if (this.listed?.transaction !== done.transaction) return;
    this.listed.done = done;
    const kept = this.listed.adds ? this.entries : this.entries.filter(({ at_ms }) => at_ms > this.listed!.at);
    const all = new Map([...this.listed.entries, ...kept].map((entry) => [entry.id, entry]));
    this.room = this.listed.adds ? Math.min(MOST, Math.max(this.room, all.size)) : FIRST;
    this.entries = [...all.values()].sort(newest).slice(0, this.room);
    this.more = done.more && this.entries.length < MOST;
  }

  /** The picture of an answer, as a blob URL; undefined until it is there. It is asked for with the next `due`. */
  picture(entry: Entry): string | undefined {
    const known = this.pictures.get(entry.id);
    if (known === undefined) {
      this.pictures.set(entry.id, "");
      this.wanted.add(entry.id);
    }
    return known || undefined;
  }

  /** Ids of pictures to ask for now, at most `most`. */
  due(most: number): number[] {
    const now = [...this.wanted].slice(0, most);
    for (const id of now) this.wanted.delete(id);
    return now;
  }

  /** A picture has come. */
  show(id: number, file: Uint8Array): void {
    const old = this.pictures.get(id);
    if (old === undefined) return; // nobody asked
    if (old) URL.revokeObjectURL(old);
    this.pictures.delete(id);
    this.pictures.set(id, URL.createObjectURL(new Blob([new Uint8Array(file)], { type: "image/jpeg" })));
    for (const [oldest, url] of this.pictures) {
      if (this.pictures.size <= MOST_PICTURES) break;
      if (url) URL.revokeObjectURL(url);
      this.pictures.delete(oldest);
    }
  }

  private clear(): void {
    for (const url of this.pictures.values()) if (url) URL.revokeObjectURL(url);
    this.pictures.clear();
    this.wanted.clear();
    this.entries = [];
    this.sought = undefined;
    this.more = false;
  }
}

function newest(a: Entry, b: Entry): number {
  return b.id - a.id;
}

/** Whether an answer is one of those that a filter wants, as the bridge decides it. */
function fits(entry: Entry, filter: Filter): boolean {
  const { answer } = entry;
  const has = (part: string, ...texts: (string | null | undefined)[]) =>
    !part.trim() || texts.filter(Boolean).join(" ").toLowerCase().includes(part.trim().toLowerCase());
  return (
    (!filter.task || entry.task === filter.task) &&
    has(filter.source, answer.source, answer.topic) &&
    has(filter.words, answer.state, ...Object.keys(answer.detected), answer.question, ...Object.values(entry.asked)) &&
    (filter.hours === 0 || entry.at_ms > Date.now() - filter.hours * HOUR_MS)
  );
}
