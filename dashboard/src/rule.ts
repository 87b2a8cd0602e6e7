// A rule as the wizard's fields have it: what it begins with, what is wrong with it, and the documents it becomes. No I/O.
import type { Models } from "./previews";
import type { Rule, Site, Task } from "./site";
import { t } from "./texts";

/** What a rule begins with: one that is there, or words that were searched for. */
export type Draft = { rule?: Rule; words?: string };

export type Values = {
  /** whether the question is new: a task is added for it */
  fresh: boolean;
  task: string;
  /** where a new question's model is from: `task/<id>` or `model/<id>` */
  like: string;
  texts: string;
  name: string;
  topic: string;
  input: string;
  every: string;
  publish: string;
  label: string;
  above: string;
};

export const ID = /^[a-z0-9][a-z0-9-]{0,63}$/;
/** Kinds of inputs that a message on a topic can be as it is. */
const WHOLE = ["image", "audio", "text", "texts", "images", "data"];

export function begin({ rule, words }: Draft): Values {
  const binding = rule?.binding;
  return {
    fresh: words !== undefined,
    task: binding?.task ?? "",
    like: "",
    texts: words ?? "",
    name: rule?.id ?? "",
    topic: binding?.source ?? "",
    input: binding?.input ?? "",
    every: `${binding?.every_s ?? 1}`,
    publish: binding?.publish ?? "",
    label: binding?.labels[0] ?? "",
    above: binding?.above == null ? "" : `${binding.above}`,
  };
}

/** The values with the first choice where none was made: the site's tasks may come after the form was opened. */
export function filled(values: Values, site: Site, models: Models): Values {
  return {
    ...values,
    task: values.task || (askable(site)[0]?.id ?? ""),
    like: values.like || (likes(site, models)[0]?.key ?? ""),
  };
}

/** Tasks that a message on a topic can be an input of. */
export function askable(site: Site): Task[] {
  return [...site.tasks.values()]
    .filter(({ route }) => wholeInputs(route?.inputs).length > 0)
    .sort((a, b) => a.id.localeCompare(b.id));
}

/** A model that says which of several texts fits a picture; `mb` more than the site holds now. */
export type Like = { key: string; model: string; mb: number; inputs: Record<string, string>; spec: object };

/** Models for a new question: those that tasks use already, then others that a device can load, the smallest first. */
export function likes(site: Site, models: Models): Like[] {
  const found = new Map<string, Like>();
  for (const { id, route, spec } of askable(site)) {
    if (!spec || !route || found.has(spec.model) || !compares(route.inputs, route.answer)) continue;
    found.set(spec.model, { key: `task/${id}`, model: spec.model, mb: 0, inputs: route.inputs, spec: spec.whole });
  }
  const more = models.known
    .filter(({ id, inputs, answer, error }) => !error && !found.has(id) && compares(inputs, answer))
    .sort((a, b) => a.added_mb - b.added_mb)
    .map(({ id, inputs, added_mb }) => ({ key: `model/${id}`, model: id, mb: added_mb, inputs, spec: { model: id } }));
  return [...found.values(), ...more];
}

function compares(inputs: Record<string, string>, answer: readonly string[]): boolean {
  return Object.values(inputs).sort().join() === "image,texts" && answer[0] === "label";
}

/** The task that a new question becomes; undefined where no model can be asked it. */
export function newTask(values: Values, site: Site, models: Models): object | undefined {
  const like = likes(site, models).find(({ key }) => key === values.like);
  const texts = Object.entries(like?.inputs ?? {}).find(([, kind]) => kind === "texts")?.[0];
  return like && texts ? { ...like.spec, inputs: { [texts]: lines(values.texts) } } : undefined;
}

/** Name -> kind of the inputs of the task that a rule asks. */
export function inputsOf(values: Values, site: Site, models: Models): Record<string, string> {
  if (!values.fresh) return site.tasks.get(values.task)?.route?.inputs ?? {};
  return likes(site, models).find(({ key }) => key === values.like)?.inputs ?? {};
}

export function wholeInputs(inputs: Record<string, string> | undefined): string[] {
  return Object.entries(inputs ?? {}).flatMap(([name, kind]) => (WHOLE.includes(kind) ? [name] : []));
}

/** The answers that a rule can wait for. */
export function labelsOf(values: Values, site: Site): string[] {
  if (values.fresh) return lines(values.texts);
  const route = site.tasks.get(values.task)?.route;
  const texts = Object.entries(route?.inputs ?? {}).find(([, kind]) => kind === "texts")?.[0];
  const usual = texts && route?.defaults[texts];
  return Array.isArray(usual) ? usual.filter((one): one is string => typeof one === "string") : [];
}

export function nameOf(values: Values): string {
  return values.name || values.task;
}

export function lines(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
}

/** What is wrong with a step's values; empty if nothing is. */
export function check(step: number, values: Values, site: Site, draft: Draft): string {
  if (step === 0 && values.fresh) {
    if (lines(values.texts).length === 0) return t.ask.missing(t.setup.question);
    if (!ID.test(values.name)) return t.setup.badName;
    if (site.tasks.has(values.name) || (site.rules.get(values.name)?.binding && !draft.rule))
      return t.setup.taken(values.name);
  }
  if (step === 0 && !(values.fresh ? values.like : values.task)) return t.ask.noTask;
  if (step === 1 && !values.topic.trim()) return t.ask.missing(t.setup.topic);
  if (step === 1 && !(Number(values.every) >= 0)) return t.ask.notNumber(values.every);
  if (step === 2 && values.above.trim() && Number.isNaN(Number(values.above))) return t.ask.notNumber(values.above);
  return "";
}

/** The binding of a rule: what the page does not read of one that is changed stays as it was. */
export function bindingOf(values: Values, task: string, draft: Draft, inputs: Record<string, string>): object {
  const input = values.input || wholeInputs(inputs)[0];
  const before = draft.rule?.binding?.whole;
  const hasPaths = Object.keys((before?.["paths"] as object | undefined) ?? {}).length > 0;
  return {
    ...before,
    source: values.topic.trim(),
    task,
    ...(input && !hasPaths ? { input } : {}),
    publish: (values.publish || `home/${nameOf(values)}`).trim(),
    every_s: Number(values.every),
    labels: values.label ? [values.label] : [],
    above: values.above.trim() ? Number(values.above) : null,
  };
}

/** A name for a rule that no other rule has. */
export function freeName(wanted: string, site: Site): string {
  const base =
    wanted
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, "-")
      .replace(/^-+|-+$/g, "")
      .slice(0, 60) || "rule";
  for (let number = 1; ; number++) {
    const name = number === 1 ? base : `${base.slice(0, 56)}-${number}`;
    if (!site.rules.get(name)?.binding) return name;
  }
}
