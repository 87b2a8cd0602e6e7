// A new rule in three steps: what is to be known, on which topic, what then. Also changes a rule that is there.
import { useState } from "preact/hooks";
import type { Connection } from "./connection";
import { act, until } from "./orders";
import { type Cost, CostLine, type Models, useCost, useModels } from "./previews";
import * as rule from "./rule";
import { type Draft, type Values, inputsOf, labelsOf, nameOf, wholeInputs } from "./rule";
import type { Site } from "./site";
import { t } from "./texts";
import { inWords } from "./words";

type Props = { site: Site; connection: Connection; draft: Draft; close: () => void };

const STEPS = 3;
/** How long a new task may take until it can answer, ms. */
export const READY_MS = 60_000;
/** The name under which the planner is asked what a new question would cost. */
const NEW = "new-question";

export function Wizard({ site, connection, draft, close }: Props) {
  const [step, go] = useState(0);
  const [given, setValues] = useState<Values>(() => rule.begin(draft));
  const models = useModels(site, connection);
  const values = rule.filled(given, site, models);
  const like = values.fresh ? rule.likes(site, models).find(({ key }) => key === values.like) : undefined;
  const cost = useCost(site, connection, NEW, like?.spec);
  const [busy, work] = useState("");
  const [wrong, complain] = useState("");
  const set = (change: Partial<Values>) => setValues({ ...given, ...change });
  const next = async (event: SubmitEvent) => {
    event.preventDefault();
    const why = rule.check(step, values, site, draft) || (like ? refusal(cost) : "");
    complain(why);
    if (why) return;
    if (step + 1 < STEPS) return go(step + 1);
    work(t.setup.saving);
    const outcome = await save(values, site, models, connection, draft);
    work("");
    complain(outcome.wrong);
    if (!outcome.wrong) close();
  };
  const part = { site, models, values, set };
  return (
    <form class="wizard" onSubmit={next} aria-busy={busy !== ""}>
      <h3>{t.setup.step(step + 1, t.setup.steps[step]!)}</h3>
      {step === 0 && <What {...part} draft={draft} />}
      {step === 1 && <Where {...part} />}
      {step === 2 && <Then {...part} />}
      {like && step !== 1 && <CostLine cost={cost} />}
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

type PartProps = { site: Site; models: Models; values: Values; set: (change: Partial<Values>) => void };

function What({ site, models, values, set, draft }: PartProps & { draft: Draft }) {
  const likes = rule.likes(site, models);
  return (
    <>
      {!draft.rule && likes.length > 0 && (
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
        <Question values={values} set={set} likes={likes} />
      ) : (
        <Existing site={site} values={values} set={set} />
      )}
    </>
  );
}

function Question({ values, set, likes }: Pick<PartProps, "values" | "set"> & { likes: rule.Like[] }) {
  return (
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
      {likes.length > 1 && (
        <label class="block">
          {t.setup.model}
          <select name="like" value={values.like} onChange={(e) => set({ like: e.currentTarget.value })}>
            {likes.map(({ key, model, mb }) => (
              <option key={key} value={key}>
                {t.setup.modelWith(model, mb)}
              </option>
            ))}
          </select>
        </label>
      )}
    </>
  );
}

function Existing({ site, values, set }: Pick<PartProps, "site" | "values" | "set">) {
  const route = site.tasks.get(values.task)?.route;
  return (
    <>
      <label class="block">
        {t.ask.task}
        <select name="rule-task" value={values.task} onChange={(e) => set({ task: e.currentTarget.value, input: "" })}>
          {rule.askable(site).map(({ id }) => (
            <option key={id} value={id}>
              {id}
            </option>
          ))}
        </select>
      </label>
      <p class="quiet">{route && (t.models[route.model] ?? route.description)}</p>
    </>
  );
}

function Where({ site, models, values, set }: PartProps) {
  const inputs = wholeInputs(inputsOf(values, site, models));
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

function Then({ site, values, set }: PartProps) {
  const labels = labelsOf(values, site);
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

/** Why the planner would not serve it; empty if it would, or nobody knows. */
export function refusal(cost: Cost): string {
  return cost.kind === "refused" ? inWords(cost.error) : "";
}

type Outcome = { wrong: string };

/** Adds the task if it is new, then the rule; waits until the bridge has taken it up. */
async function save(
  values: Values,
  site: Site,
  models: Models,
  connection: Connection,
  draft: Draft,
): Promise<Outcome> {
  const task = values.fresh ? values.name : values.task;
  const inputs = inputsOf(values, site, models);
  if (values.fresh) {
    const spec = rule.newTask(values, site, models);
    if (!spec) return { wrong: t.ask.noTask };
    const wrong = await act.retain(connection, `task/${task}`, JSON.stringify(spec), () => site.tasks.has(task));
    if (wrong) return { wrong };
  }
  const name = draft.rule?.id ?? rule.freeName(values.name || `${task}-${values.topic}`, site);
  const body = JSON.stringify(rule.bindingOf(values, task, draft, inputs));
  const has = () => JSON.stringify(site.rules.get(name)?.binding?.whole) === body;
  const wrong = await act.retain(connection, `bind/${name}`, body, has);
  if (wrong) return { wrong };
  await until(() => site.rules.get(name)?.report !== undefined);
  const refused = site.rules.get(name)?.report?.error;
  if (refused) return { wrong: inWords(refused) };
  const why = await whyNotReady(site, task);
  return { wrong: why && t.setup.notReady(why) };
}

/** Waits until a task can answer; returns why it cannot, or nothing if it can or only takes longer. */
export async function whyNotReady(site: Site, task: string): Promise<string> {
  const settled = () => {
    const found = site.tasks.get(task);
    return found !== undefined && (site.ready(found) || found.route?.error != null);
  };
  await until(settled, READY_MS);
  const error = site.tasks.get(task)?.route?.error;
  return error ? inWords(error) : "";
}
