// The tasks of a site: added from the planner's models, changed, removed. What one costs is said before it is added.
import { useState } from "preact/hooks";
import type { Connection } from "./connection";
import { act } from "./orders";
import { CostLine, type KnownModel, useCost, useModels } from "./previews";
import { ID, lines } from "./rule";
import { Search } from "./search";
import type { Site, Task } from "./site";
import { Sure } from "./sure";
import { t } from "./texts";
import { refusal, whyNotReady } from "./wizard";
import { inWords, todo } from "./words";

/** With more tasks than this, they can be searched, and only the first ones are shown. */
const MANY = 16;
/** Kinds of inputs whose defaults can be typed. */
const TYPED = ["text", "texts", "number", "chat"];
const DEADLINE_S = 30;

type Props = { site: Site; connection: Connection };

export function Tasks({ site, connection }: Props) {
  const [said, say] = useState("");
  const [sought, seek] = useState("");
  /** the task that is being changed; "" for a new one, null if the form is closed */
  const [edited, edit] = useState<string | null>(null);
  const all = [...site.tasks.values()].sort((a, b) => a.id.localeCompare(b.id));
  const found = all.filter(({ id, spec }) => `${id} ${spec?.model ?? ""}`.includes(sought.trim().toLowerCase()));
  const remove = async (task: string) =>
    say((await act.retain(connection, `task/${task}`, "", () => !site.tasks.get(task)?.spec)) || t.setup.done);
  const close = (word: string) => {
    edit(null);
    say(word);
  };
  return (
    <section class="panel setup" aria-labelledby="setup-tasks">
      <h2 id="setup-tasks">{t.setup.tasks}</h2>
      {edited === null ? (
        <button class="small" onClick={() => edit("")}>
          {t.setup.addTask}
        </button>
      ) : (
        <TaskForm key={edited} site={site} connection={connection} task={site.tasks.get(edited)} close={close} />
      )}
      {all.length > MANY && <Search label={t.board.search} sought={sought} seek={seek} />}
      <ul class="rules compact">
        {found.slice(0, MANY).map((task) => (
          <li key={task.id} data-task-row={task.id}>
            <div>
              <b>{task.id}</b>{" "}
              <span class={`state ${site.ready(task) ? "active" : "refused"}`}>
                {site.ready(task) ? `✓ ${t.board.ready}` : `✕ ${t.board.notReady}`}
              </span>
              <p class="quiet">{(task.route && t.models[task.route.model]) || task.route?.description}</p>
              {task.route?.error && <p class="error">{`${inWords(task.route.error)} ${todo(task.route.error)}`}</p>}
            </div>
            <div class="actions">
              {task.spec && (
                <button class="small" aria-label={`${t.setup.edit}: ${task.id}`} onClick={() => edit(task.id)}>
                  {t.setup.edit}
                </button>
              )}
              <Sure what={task.id} word={t.setup.remove} does={() => void remove(task.id)} />
            </div>
          </li>
        ))}
      </ul>
      {found.length > MANY && <p class="quiet">{t.setup.moreTasks(found.length - MANY)}</p>}
      <p role="status" class="said">
        {said}
      </p>
    </section>
  );
}

type Values = { name: string; model: string; typed: Record<string, string>; deadline: string };

function TaskForm({ site, connection, task, close }: Props & { task?: Task; close: (said: string) => void }) {
  const models = useModels(site, connection);
  const [given, setValues] = useState<Values>(() => begin(task));
  const [busy, work] = useState(false);
  const [wrong, complain] = useState("");
  const known = models.known.filter(({ error }) => !error).sort(byCost);
  const values = { ...given, model: given.model || (known[0]?.id ?? "") };
  const set = (change: Partial<Values>) => setValues({ ...given, ...change });
  const inputs = inputsOf(task, values.model, known);
  const spec = values.model ? specOf(task, values, inputs) : undefined;
  const cost = useCost(site, connection, task?.id ?? "new-task", spec && { ...spec, inputs: {} });
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const why = check(task, values, site) || refusal(cost);
    complain(why);
    if (why || !spec) return;
    work(true);
    const name = task?.id ?? values.name;
    const body = JSON.stringify(spec);
    const has = () => JSON.stringify(site.tasks.get(name)?.spec?.whole) === body;
    const denied = await act.retain(connection, `task/${name}`, body, has);
    const notReady = denied || (await whyNotReady(site, name));
    work(false);
    complain(notReady);
    if (!notReady) close(t.setup.taskWorks(name));
  };
  return (
    <form class="wizard" onSubmit={submit} aria-busy={busy}>
      <h3>{task ? t.setup.changeTask(task.id) : t.setup.addTask}</h3>
      {!task && known.length === 0 && <p class="quiet">{models.asked ? t.setup.noModels : t.setup.modelsAsked}</p>}
      <ModelChoice task={task} known={known} model={values.model} choose={(model) => set({ model, typed: {} })} />
      {!task && (
        <label class="block">
          {t.setup.name}
          <input
            name="task-name"
            value={values.name}
            placeholder={t.setup.nameHint}
            autocapitalize="none"
            onInput={(e) => set({ name: e.currentTarget.value.toLowerCase() })}
          />
        </label>
      )}
      {Object.entries(inputs).map(([name, kind]) => (
        <label key={name} class="block">
          {t.setup.usual(name)} <small>{(t.ask.kinds as Record<string, string>)[kind]}</small>
          <textarea
            name={`usual-${name}`}
            rows={kind === "texts" ? 3 : 1}
            value={values.typed[name] ?? ""}
            onInput={(e) => set({ typed: { ...values.typed, [name]: e.currentTarget.value } })}
          />
        </label>
      ))}
      <label class="block">
        {t.setup.deadline}
        <input
          name="deadline"
          inputMode="decimal"
          value={values.deadline}
          onInput={(e) => set({ deadline: e.currentTarget.value })}
        />
      </label>
      {spec && <CostLine cost={cost} />}
      <p class="error" role="alert">
        {wrong}
      </p>
      <div class="actions">
        <button class="primary" disabled={busy || !spec}>
          {busy ? t.setup.adding : task ? t.setup.change : t.setup.yesAdd}
        </button>
        <button type="button" onClick={() => close("")}>
          {t.setup.cancel}
        </button>
      </div>
    </form>
  );
}

type ChoiceProps = { task?: Task; known: KnownModel[]; model: string; choose: (model: string) => void };

/** The model of a task. One that comes with a definition of its own, of a checkpoint, stays. */
function ModelChoice({ task, known, model, choose }: ChoiceProps) {
  const description = t.models[model] ?? known.find(({ id }) => id === model)?.description;
  const own = task !== undefined && known.length > 0 && !known.some(({ id }) => id === task.spec?.model);
  return (
    <>
      {own && <p class="quiet">{t.setup.ownModel(model)}</p>}
      {!own && known.length > 0 && (
        <label class="block">
          {t.setup.model}
          <select name="model" value={model} onChange={(e) => choose(e.currentTarget.value)}>
            {known.map(({ id, added_mb }) => (
              <option key={id} value={id}>
                {t.setup.modelWith(id, added_mb)}
              </option>
            ))}
          </select>
        </label>
      )}
      {description && <p class="quiet">{description}</p>}
    </>
  );
}

function byCost(a: KnownModel, b: KnownModel): number {
  return a.added_mb - b.added_mb || a.id.localeCompare(b.id);
}

function begin(task: Task | undefined): Values {
  const usual = (task?.spec?.whole["inputs"] as Record<string, unknown> | undefined) ?? {};
  const typed = Object.entries(usual).flatMap(([name, value]) => {
    const text = Array.isArray(value) ? value.join("\n") : value;
    return typeof text === "string" || typeof text === "number" ? [[name, `${text}`]] : [];
  });
  return {
    name: "",
    model: task?.spec?.model ?? "",
    typed: Object.fromEntries(typed) as Record<string, string>,
    deadline: `${(task?.spec?.whole["deadline_s"] as number | undefined) ?? DEADLINE_S}`,
  };
}

/** Name -> kind of the inputs whose defaults can be typed. */
function inputsOf(task: Task | undefined, model: string, known: KnownModel[]): Record<string, string> {
  const inputs = known.find(({ id }) => id === model)?.inputs ?? (task?.spec?.model === model && task.route?.inputs);
  return Object.fromEntries(Object.entries(inputs || {}).filter(([, kind]) => TYPED.includes(kind)));
}

/** The task's document: what the page does not read of one that is changed stays as it was. */
function specOf(task: Task | undefined, values: Values, inputs: Record<string, string>): Record<string, unknown> {
  const before = task?.spec?.whole ?? {};
  const usual = { ...(task?.spec?.model === values.model ? (before["inputs"] as object) : {}) } as Record<
    string,
    unknown
  >;
  for (const [name, kind] of Object.entries(inputs)) {
    const text = values.typed[name]?.trim() ?? "";
    if (!text) delete usual[name];
    else usual[name] = kind === "texts" ? lines(text) : kind === "number" ? Number(text) : text;
  }
  return { ...before, model: values.model, inputs: usual, deadline_s: Number(values.deadline) };
}

function check(task: Task | undefined, values: Values, site: Site): string {
  if (!task && !ID.test(values.name)) return t.setup.badName;
  if (!task && site.tasks.has(values.name)) return t.setup.taken(values.name);
  return Number(values.deadline) > 0 ? "" : t.ask.notNumber(values.deadline);
}
