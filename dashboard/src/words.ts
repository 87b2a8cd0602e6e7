// Texts for people: errors and states in words, formatted numbers. Independent of the page's components.
import type { ErrorBody, Event } from "./documents";

const ERRORS: Record<string, string> = {
  bad_input: "The input cannot be used",
  unknown_task: "There is no task of this name",
  no_capacity: "The modules do not fit on the devices there are",
  too_large: "That is more than may be sent",
  busy: "Too much at once: the queues are full. Try again in a moment",
  timeout: "It took longer than it may",
  module_failed: "A module could not be loaded, or failed",
  not_ready: "Not ready yet",
  unauthorised: "This login may not do that",
};

/** The text for an error: its code in words, then its detail. */
export function inWords(error: ErrorBody): string {
  const head = ERRORS[error.code] ?? error.code;
  return error.detail ? `${head}: ${error.detail}` : `${head}.`;
}

/** One line for an event. */
export function eventInWords(event: Event): string {
  const detail = event.detail ? `: ${event.detail}` : "";
  switch (event.event) {
    case "node_joined":
      return `${event.node ?? "A node"} joined${detail}`;
    case "node_lost":
      return `${event.node ?? "A node"} was lost${detail}`;
    case "plan_changed":
      return `${event.node ?? "A node"} is now to hold ${event.detail ? names(event.detail.split(" "), 8) : "nothing"}`;
    case "module_failed":
      return `${event.module ?? "A module"} failed on ${event.node ?? "a node"}${detail}`;
    case "request_failed":
      return `A request to ${event.task ?? "a task"} failed${detail}`;
    case "node_woken":
      return `${event.node ?? "A node"} is asleep and wanted${detail}`;
    case "unknown":
      return `Something that this page is too old to know happened on ${event.node ?? "the site"}${detail}`;
  }
}

const ROLES: Record<string, [letter: string, word: string]> = {
  "vision-encoder": ["V", "vision encoder"],
  "text-encoder": ["T", "text encoder"],
  "audio-encoder": ["A", "audio encoder"],
  decoder: ["D", "decoder"],
  head: ["H", "head"],
};

/** A role's letter and label; an unknown role keeps its name. */
export function role(name: string): { letter: string; word: string } {
  const [letter, word] = ROLES[name] ?? ["M", name || "module"];
  return { letter, word };
}
export const KNOWN_ROLES = Object.keys(ROLES);

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

export function count(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`;
}

/** Joins names: "a", "a and b", "a, b and 3 more". */
export function names(all: readonly string[], most = 4): string {
  if (all.length > most) return `${all.slice(0, most - 1).join(", ")} and ${all.length - most + 1} more`;
  return all.length < 2 ? (all[0] ?? "") : `${all.slice(0, -1).join(", ")} and ${all.at(-1)}`;
}

/** Formats any value of an answer as one short text, which is never interpreted as HTML. */
export function shown(value: unknown, most = 300): string {
  const whole = asText(value);
  return whole.length > most ? `${whole.slice(0, most)}…` : whole;
}

function asText(value: unknown): string {
  if (typeof value === "string") return value;
  if (value === undefined || value === null) return "no answer";
  if (isFile(value)) return "a file";
  if (Array.isArray(value) && value.length > 0 && value.every(isBox))
    return value.map((box) => `${box.label} ${box.score.toFixed(2)}`).join(", ");
  return JSON.stringify(value);
}

/** A picture or sound in plain form: its base64 is no text for people. */
function isFile(value: unknown): boolean {
  return typeof value === "object" && value !== null && "base64" in value;
}

/** One of a detector's boxes: where it is in the picture is said in the answer's JSON. */
function isBox(value: unknown): value is { label: string; score: number } {
  if (typeof value !== "object" || value === null || !("box" in value)) return false;
  return "label" in value && typeof value.label === "string" && "score" in value && typeof value.score === "number";
}

export function clock(at: number): string {
  return new Date(at).toLocaleTimeString(undefined, { hour12: false });
}
