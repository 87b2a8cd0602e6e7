// Texts for people: errors and states in words, formatted numbers. Independent of the page's components.
import type { ErrorBody, Event } from "./documents";
import { t } from "./texts";

export { count, names } from "./format";

/** The text for an error: its code in words, then its detail. */
export function inWords(error: ErrorBody): string {
  const head = t.errors[error.code]?.[0] ?? error.code;
  return error.detail ? `${head}: ${error.detail}` : `${head}.`;
}

/** What a person can do about an error; empty for a code that the page does not know. */
export function todo(error: ErrorBody): string {
  return t.errors[error.code]?.[1] ?? "";
}

/** One line for an event. */
export function eventInWords(event: Event): string {
  const detail = event.detail ? `: ${event.detail}` : "";
  const node = event.node ?? t.events.aNode;
  switch (event.event) {
    case "node_joined":
      return t.events.joined(node) + detail;
    case "node_lost":
      return t.events.lost(node) + detail;
    case "node_woken":
      return t.events.woken(node) + detail;
    case "plan_changed":
      return t.events.plan(node, event.detail ? event.detail.split(" ") : []);
    case "module_failed":
      return t.events.moduleFailed(event.module ?? t.events.aModule, node) + detail;
    case "request_failed":
      return t.events.requestFailed(event.task ?? t.events.aTask) + detail;
    case "unknown":
      return t.events.unknown(event.node ?? t.events.theSite) + detail;
  }
}

/** role -> the sign that stands for it; the legend says what it means */
const SIGNS: Record<string, string> = {
  "vision-encoder": "◉",
  "text-encoder": "¶",
  "audio-encoder": "♪",
  decoder: "✎",
  head: "⚖",
};

/** A role's sign and label; an unknown role keeps its name. */
export function role(name: string): { sign: string; word: string } {
  return { sign: SIGNS[name] ?? "▪", word: t.roles[name] ?? (name || t.roles["module"]!) };
}
export const KNOWN_ROLES = Object.keys(SIGNS);

/** Formats megabytes. */
export function mb(amount: number): string {
  if (amount >= 10_000) return `${(amount / 1000).toFixed(1)} GB`;
  return amount >= 10 || amount === 0 ? `${Math.round(amount)} MB` : `${amount.toFixed(1)} MB`;
}

/** Formats milliseconds. */
export function ms(amount: number): string {
  if (amount >= 10_000) return `${(amount / 1000).toFixed(1)} s`;
  return amount >= 10 ? `${Math.round(amount)} ms` : `${amount.toFixed(1)} ms`;
}

/** Formats any value of an answer as one short text, which is never interpreted as HTML. */
export function shown(value: unknown, most = 300): string {
  const whole = asText(value);
  return whole.length > most ? `${whole.slice(0, most)}…` : whole;
}

function asText(value: unknown): string {
  if (typeof value === "string") return value;
  if (value === undefined || value === null) return t.words.noAnswer;
  if (isFile(value)) return t.words.file;
  if (Array.isArray(value) && value.length > 0 && value.every(isBox))
    return value.map((box) => `${box.label} ${box.score.toFixed(2)}`).join(", ");
  return JSON.stringify(value);
}

/** A picture or sound in plain form: its base64 is no text for people. */
export function isFile(value: unknown): value is { base64: string } {
  return typeof value === "object" && value !== null && "base64" in value && typeof value.base64 === "string";
}

/** One of a detector's boxes: where it is in the picture is said in the answer's JSON. */
function isBox(value: unknown): value is { label: string; score: number } {
  if (typeof value !== "object" || value === null || !("box" in value)) return false;
  return "label" in value && typeof value.label === "string" && "score" in value && typeof value.score === "number";
}

export function clock(at: number): string {
  return new Date(at).toLocaleTimeString(t.language, { hourCycle: "h23" });
}

/** Date and time, the date only if it is not today. */
export function when(at: number, now: number): string {
  const today = new Date(at).toDateString() === new Date(now).toDateString();
  const day = today
    ? ""
    : `${new Date(at).toLocaleDateString(t.language, { weekday: "short", day: "numeric", month: "short" })} `;
  return day + clock(at);
}
