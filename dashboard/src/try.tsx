// The form: one request to a task with an image, audio or texts, sent as any plain MQTT client would.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Connection } from "./connection";
import type { Answer, RouteDoc } from "./documents";
import { Field, type Given, encode } from "./inputs";
import type { Site } from "./site";
import { Shown } from "./shown";
import { Steps } from "./steps";
import { t } from "./texts";
import type { Request } from "./traffic";
import { clock, inWords, ms, shown, todo } from "./words";

type Asked = { task: string; transaction: string; at: number; deadline_s: number };
type State =
  | { kind: "idle" }
  | { kind: "wrong"; why: string }
  | { kind: "preparing" }
  | { kind: "waiting"; asked: Asked }
  | { kind: "answered"; asked: Asked; answer: Answer; given: Record<string, Given> };

/** A little more than the deadline, as the answer with the code `timeout` is sent after it. */
const PATIENCE_MS = 3_000;

export function Try({ site, connection }: { site: Site; connection: Connection }) {
  const tasks = [...site.tasks.values()].filter((task) => task.route).sort((a, b) => a.id.localeCompare(b.id));
  const [chosen, choose] = useState("");
  const [given, give] = useState<Record<string, Given>>({});
  const [state, setState] = useState<State>({ kind: "idle" });
  const task = tasks.find(({ id }) => id === chosen) ?? tasks[0];
  const route = task?.route;
  const example = route && t.examples[route.model];
  const now = Date.now();
  const sent = useRef<Record<string, Given>>({});
  useAnswer(site.traffic.requests, state, (asked, answer) =>
    setState({ kind: "answered", asked, answer, given: sent.current }),
  );
  useEffect(() => {
    if (state.kind === "waiting" && now - state.asked.at > state.asked.deadline_s * 1000 + PATIENCE_MS)
      setState({ kind: "wrong", why: t.ask.noAnswer });
  });
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (!task || !route) return;
    const asked = {
      task: task.id,
      transaction: `page-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`,
      at: Date.now(),
      deadline_s: route.deadline_s,
    };
    setState({ kind: "preparing" }); // the answer before is gone at once: a large picture takes seconds to prepare
    sent.current = given;
    try {
      const inputs = await encode(route, given);
      asked.at = Date.now();
      setState({ kind: "waiting", asked });
      await connection.ask(task.id, JSON.stringify({ transaction: asked.transaction, inputs, stream: true }));
    } catch (error) {
      setState({ kind: "wrong", why: error instanceof Error ? error.message : t.ask.notSent });
    }
  };
  return (
    <section class="panel try" id="try" aria-labelledby="try-title" tabIndex={-1}>
      <h2 id="try-title">{t.ask.title}</h2>
      {tasks.length === 0 ? (
        <p class="quiet">{t.ask.noTask}</p>
      ) : (
        <form onSubmit={submit} aria-busy={state.kind === "waiting" || state.kind === "preparing"}>
          <div class="block">
            <label for="task">{t.ask.task}</label>
            <select
              id="task"
              name="task"
              value={task?.id}
              onChange={(e) => {
                if (e.currentTarget.value !== task?.id) {
                  give({});
                  setState({ kind: "idle" });
                }
                choose(e.currentTarget.value);
              }}
            >
              {tasks.map(({ id }) => (
                <option key={id} value={id}>
                  {id}
                </option>
              ))}
            </select>
          </div>
          {route && <p class="quiet description">{t.models[route.model] ?? route.description}</p>}
          {example && (
            <button
              type="button"
              onClick={() => fill(example, route!).then(give, () => setState({ kind: "wrong", why: t.ask.notSent }))}
            >
              {t.ask.example}
            </button>
          )}
          {Object.entries(route?.inputs ?? {}).map(([name, kind]) => (
            <Field
              key={`${task?.id} ${name}`}
              name={name}
              kind={kind}
              usual={route?.defaults[name]}
              given={given[name]}
              give={(value) => give({ ...given, [name]: value })}
              failed={(why) => setState({ kind: "wrong", why })}
            />
          ))}
          <button class="primary" disabled={connection.phase !== "online"}>
            {t.ask.ask}
          </button>
          {connection.phase !== "online" && <p class="quiet">{t.ask.offline}</p>}
        </form>
      )}
      <div role="status" class="outcome">
        <Outcome state={state} now={now} route={route} texts={site.traffic.texts} />
      </div>
    </section>
  );
}

/** Fetches the files of an example; returns what the form holds then. */
async function fill(example: Record<string, string>, route: RouteDoc): Promise<Record<string, Given>> {
  const filled: Record<string, Given> = {};
  for (const [name, value] of Object.entries(example)) {
    const kind = route.inputs[name];
    if (kind === "image" || kind === "images" || kind === "audio")
      filled[name] = { text: "", files: await Promise.all(value.split(" ").map(sample)) };
    else if (kind !== undefined) filled[name] = { text: value, files: [] };
  }
  return filled;
}

async function sample(name: string): Promise<File> {
  const response = await fetch(`samples/${name}`);
  if (!response.ok) throw new Error(name);
  const blob = await response.blob();
  return new File([blob], name, { type: blob.type });
}

/** Finds the answer to the page's request among the answers on the shared topic. */
function useAnswer(requests: readonly Request[], state: State, found: (asked: Asked, answer: Answer) => void): void {
  const looked = useRef(-1);
  useEffect(() => {
    if (state.kind !== "waiting") return;
    const { asked } = state;
    const fresh = requests.filter(({ key }) => key > looked.current);
    looked.current = requests.at(-1)?.key ?? looked.current;
    const ours = fresh.find(({ task, answer }) => task === asked.task && answer.transaction === asked.transaction);
    if (ours) found(asked, ours.answer);
  });
}

type OutcomeProps = {
  state: State;
  now: number;
  route: RouteDoc | undefined;
  texts: ReadonlyMap<string | number, string>;
};

function Outcome({ state, now, route, texts }: OutcomeProps) {
  switch (state.kind) {
    case "idle":
      return null;
    case "wrong":
      return <p class="error">✕ {state.why}</p>;
    case "waiting":
      return (
        <>
          <p class="answer" aria-hidden="true">
            {texts.get(state.asked.transaction)}
          </p>
          <p>
            {t.ask.waiting(
              state.asked.task,
              Math.max(0, Math.round((now - state.asked.at) / 1000)),
              state.asked.deadline_s,
            )}
          </p>
        </>
      );
    case "preparing":
      return <p>{t.ask.preparing}</p>;
    case "answered":
      return <Answered asked={state.asked} answer={state.answer} given={state.given} route={route} />;
  }
}

type AnsweredProps = { asked: Asked; answer: Answer; given: Record<string, Given>; route: RouteDoc | undefined };

function Answered({ asked, answer, given, route }: AnsweredProps) {
  if (answer.status === "error")
    return (
      <p class="error">
        ✕ {answer.error ? inWords(answer.error) : t.ask.noReason} {answer.error && todo(answer.error)}
      </p>
    );
  const pictures = Object.entries(given).find(([name]) => route?.inputs[name] === "images")?.[1].files;
  const others = Object.entries(answer.outputs).filter(([, value]) => value !== answer.answer);
  return (
    <>
      <div class="answer" data-answer={asked.task}>
        <Shown value={answer.answer} of={route?.answer[0] === "picture" ? (pictures ?? []) : undefined} />
      </div>
      <p class="quiet">
        {asked.task}, {clock(asked.at)}: {ms(answer.latency_ms)}
        {answer.attempts > 1 && t.home.attempts(answer.attempts)}
      </p>
      <Steps answer={answer} route={route} />
      {others.length > 0 && (
        <details>
          <summary>{t.home.everything}</summary>
          <dl class="outputs">
            {others.map(([name, value]) => (
              <div key={name}>
                <dt>{name}</dt>
                <dd>{shown(value, 1_000)}</dd>
              </div>
            ))}
          </dl>
        </details>
      )}
    </>
  );
}
