// A new rule in three steps: what is to be known, on which topic, what then. Also changes a rule that is there.
import { useState } from "preact/hooks";
import type { Connection } from "./connection";
import type { RouteDoc } from "./documents";
import { act, until } from "./orders";
import type { Rule, Site, Task } from "./site";
import { t } from "./texts";
import { inWords } from "./words";

/** What a rule begins with: one that is there, or words that were searched for. */
export type Draft = { rule?: Rule; words?: string };
type Props = { site: Site; connection: Connection; draft: Draft; close: () => void };

type Values = {
  fresh: boolean;
  task: string;
  model: string;
  texts: string;
  name: string;
  topic: string;
  input: string;
  every: string;
  publish: string;
  label: string;
  above: string;
};

const ID = /^[a-z0-9][a-z0-9-]{0,63}$/;
/** Kinds of inputs that a message on a topic can be as it is. */
const WHOLE = ["image", "audio", "text", "texts", "images", "data"];
const STEPS = 3;
/** How long a new task may take until it can answer, ms. */
const READY_MS = 60_000;

export function Wizard({ site, connection, draft, close }: Props) {
  const [step, go] = useState(0);
  const [given, setValues] = useState<Values>(() => begin(draft));
  const values = filled(given, site);
  const [busy, work] = useState("");
  const [wrong, complain] = useState("");
  const set = (change: Partial<Values>) => setValues({ ...given, ...change });
  const next = async (event: SubmitEvent) => {
    event.preventDefault();
    const why = check(step, values, site, draft);
    complain(why);
    if (why) return;
    if (step + 1 < STEPS) return go(step + 1);
    work(t.setup.saving);
    const outcome = await save(values, site, connection, draft);
    work("");
    complain(outcome.wrong);
    if (!outcome.wrong) close();
  };
  return (
    <form class="wizard" onSubmit={next} aria-busy={busy !== ""}>
      <h3>{t.setup.step(step + 1, t.setup.steps[step]!)}</h3>
      {step === 0 && <What site={site} values={values} set={set} draft={draft} />}
      {step === 1 && <Where site={site} values={values} set={set} />}
      {step === 2 && <Then values={values} set={set} labels={labelsOf(values, site)} />}
      <p class="error" role="alert">
        {wrong}
      </p>
      <div class="actions">
        <button class="primary" disabled={busy !== ""}>
          {busy || (step + 1 < STEPS ? t.setup.next : t.setup.save)}
        </button>
        {step > 0 && (
          <button type="button" onClick={() => go(step - 1)}>
            {t.setup.back}
          </button>
        )}
        <button type="button" onClick={close}>
          {t.setup.cancel}
        </button>
      </div>
    </form>
  );
}

type PartProps = { site: Site; values: Values; set: (change: Partial<Values>) => void };

function What({ site, values, set, draft }: PartProps & { draft: Draft }) {
  const tasks = askable(site);
  const models = comparing(site);
  return (
    <>
      {!draft.rule && models.length > 0 && (
        <div class="choice">
          <label>
            <input type="radio" name="fresh" checked={values.fresh} onChange={() => set({ fresh: true })} />
            {t.setup.fresh}
          </label>
          <label>
            <input type="radio" name="fresh" checked={!values.fresh} onChange={() => set({ fresh: false })} />
            {t.setup.existing}
          </label>
        </div>
      )}
      {values.fresh ? (
        <>
          <label class="block">
            {t.setup.question}
            <textarea
              name="texts"
              rows={3}
              value={values.texts}
              placeholder={t.setup.questionHint}
              onInput={(e) => set({ texts: e.currentTarget.value })}
            />
          </label>
          <label class="block">
            {t.setup.name}
            <input
              name="name"
              value={values.name}
              placeholder={t.setup.nameHint}
              autocapitalize="none"
              onInput={(e) => set({ name: e.currentTarget.value.toLowerCase() })}
            />
          </label>
          <p class="quiet">
            {cost(
              models.find(({ id }) => id === values.model),
              site,
            )}
          </p>
        </>
      ) : (
        <>
          <label class="block">
            {t.ask.task}
            <select
              name="rule-task"
              value={values.task}
              onChange={(e) => set({ task: e.currentTarget.value, input: "" })}
            >
              {tasks.map(({ id }) => (
                <option key={id} value={id}>
                  {id}
                </option>
              ))}
            </select>
          </label>
          <p class="quiet">{descriptionOf(site.tasks.get(values.task)?.route)}</p>
        </>
      )}
    </>
  );
}

function Where({ site, values, set }: PartProps) {
  const inputs = wholeInputs(routeOf(values, site));
  const known = [...new Set([...site.rules.values()].flatMap(({ binding }) => (binding ? [binding.source] : [])))];
  return (
    <>
      <label class="block">
        {t.setup.topic}
        <input
          name="topic"
          list="topics"
          value={values.topic}
          placeholder={t.setup.topicHint}
          autocapitalize="none"
          onInput={(e) => set({ topic: e.currentTarget.value })}
        />
        <datalist id="topics">
          {known.map((topic) => (
            <option key={topic} value={topic} />
          ))}
        </datalist>
      </label>
      {inputs.length > 1 && (
        <label class="block">
          {t.setup.input}
          <select
            name="input"
            value={values.input || inputs[0]}
            onChange={(e) => set({ input: e.currentTarget.value })}
          >
            {inputs.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
      )}
      <label class="block">
        {t.setup.every}
        <input
          name="every"
          inputMode="decimal"
          value={values.every}
          onInput={(e) => set({ every: e.currentTarget.value })}
        />
      </label>
    </>
  );
}

function Then({ values, set, labels }: Omit<PartProps, "site"> & { labels: string[] }) {
  return (
    <>
      <label class="block">
        {t.setup.publish}
        <input
          name="publish"
          value={values.publish || `home/${nameOf(values)}`}
          autocapitalize="none"
          onInput={(e) => set({ publish: e.currentTarget.value })}
        />
      </label>
      {labels.length > 0 && (
        <label class="block">
          {t.setup.label}
          <select name="label" value={values.label} onChange={(e) => set({ label: e.currentTarget.value })}>
            <option value="">{t.setup.anyLabel}</option>
            {labels.map((label) => (
              <option key={label} value={label}>
                {label}
              </option>
            ))}
          </select>
        </label>
      )}
      <label class="block">
        {t.setup.above}
        <input
          name="above"
          inputMode="decimal"
          value={values.above}
          onInput={(e) => set({ above: e.currentTarget.value })}
        />
      </label>
    </>
  );
}

function begin({ rule, words }: Draft): Values {
  const binding = rule?.binding;
  return {
    fresh: words !== undefined,
    task: binding?.task ?? "",
    model: "",
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
function filled(values: Values, site: Site): Values {
  return {
    ...values,
    task: values.task || (askable(site)[0]?.id ?? ""),
    model: values.model || (comparing(site)[0]?.id ?? ""),
  };
}

/** Tasks that a message on a topic can be an input of. */
function askable(site: Site): Task[] {
  return [...site.tasks.values()]
    .filter(({ route }) => wholeInputs(route).length > 0)
    .sort((a, b) => a.id.localeCompare(b.id));
}

/** Tasks whose model says which of several texts fits a picture: a new question can use the same model. */
function comparing(site: Site): Task[] {
  return askable(site).filter(({ route, spec }) => {
    const kinds = Object.values(route?.inputs ?? {})
      .sort()
      .join();
    return spec !== undefined && kinds === "image,texts" && route?.answer[0] === "label";
  });
}

function routeOf(values: Values, site: Site): RouteDoc | undefined {
  return site.tasks.get(values.fresh ? values.model : values.task)?.route;
}

function wholeInputs(route: RouteDoc | undefined): string[] {
  return Object.entries(route?.inputs ?? {}).flatMap(([name, kind]) => (WHOLE.includes(kind) ? [name] : []));
}

function labelsOf(values: Values, site: Site): string[] {
  if (values.fresh) return lines(values.texts);
  const texts = Object.entries(routeOf(values, site)?.inputs ?? {}).find(([, kind]) => kind === "texts")?.[0];
  const usual = texts && site.tasks.get(values.task)?.route?.defaults[texts];
  return Array.isArray(usual) ? usual.filter((one): one is string => typeof one === "string") : [];
}

function nameOf(values: Values): string {
  return values.name || values.task;
}

function descriptionOf(route: RouteDoc | undefined): string {
  return route ? (t.models[route.model] ?? route.description) : "";
}

/** A new question to a model that is there needs no more memory: its parts are shared. */
function cost(task: Task | undefined, site: Site): string {
  if (!task?.route) return t.setup.costUnknown;
  const on = Object.values(task.route.steps).flatMap(({ replicas }) => replicas.map(({ node }) => node));
  return site.ready(task) ? t.setup.cost(0, [...new Set(on)]) : t.setup.costUnknown;
}

function lines(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
}

/** What is wrong with a step's values; empty if nothing is. */
function check(step: number, values: Values, site: Site, draft: Draft): string {
  if (step === 0 && values.fresh) {
    if (lines(values.texts).length === 0) return t.ask.missing(t.setup.question);
    if (!ID.test(values.name)) return t.setup.badName;
    if (site.tasks.has(values.name) || (site.rules.get(values.name)?.binding && !draft.rule))
      return t.setup.taken(values.name);
  }
  if (step === 0 && !(values.fresh ? values.model : values.task)) return t.ask.noTask;
  if (step === 1 && !values.topic.trim()) return t.ask.missing(t.setup.topic);
  if (step === 1 && !(Number(values.every) >= 0)) return t.ask.notNumber(values.every);
  if (step === 2 && values.above.trim() && Number.isNaN(Number(values.above))) return t.ask.notNumber(values.above);
  return "";
}

/** Adds the task if it is new, then the rule; waits until the bridge has taken it up. */
async function save(values: Values, site: Site, connection: Connection, draft: Draft): Promise<{ wrong: string }> {
  let task = values.task;
  if (values.fresh) {
    task = values.name;
    const like = site.tasks.get(values.model)!;
    const texts = Object.entries(like.route!.inputs).find(([, kind]) => kind === "texts")![0];
    const spec = { ...like.spec!.whole, inputs: { [texts]: lines(values.texts) } };
    const wrong = await act.retain(connection, `task/${task}`, JSON.stringify(spec), () => site.tasks.has(task));
    if (wrong) return { wrong };
  }
  const name = draft.rule?.id ?? freeName(values.name || `${task}-${values.topic}`, site);
  const input = values.input || wholeInputs(routeOf(values, site))[0];
  const binding = {
    ...draft.rule?.binding?.whole,
    source: values.topic.trim(),
    task,
    ...(input && !hasPaths(draft) ? { input } : {}),
    publish: (values.publish || `home/${nameOf(values)}`).trim(),
    every_s: Number(values.every),
    labels: values.label ? [values.label] : [],
    above: values.above.trim() ? Number(values.above) : null,
  };
  const body = JSON.stringify(binding);
  const has = () => JSON.stringify(site.rules.get(name)?.binding?.whole) === body;
  const wrong = await act.retain(connection, `bind/${name}`, body, has);
  if (wrong) return { wrong };
  await until(() => site.rules.get(name)?.report !== undefined);
  const refused = site.rules.get(name)?.report?.error;
  if (refused) return { wrong: inWords(refused) };
  const ready = () => {
    const found = site.tasks.get(task);
    return found !== undefined && (site.ready(found) || found.route?.error != null);
  };
  await until(ready, READY_MS);
  const error = site.tasks.get(task)?.route?.error;
  return { wrong: error ? t.setup.notReady(inWords(error)) : "" };
}

function hasPaths(draft: Draft): boolean {
  return Object.keys((draft.rule?.binding?.whole["paths"] as object | undefined) ?? {}).length > 0;
}

/** A name for a rule that no other rule has. */
function freeName(wanted: string, site: Site): string {
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
