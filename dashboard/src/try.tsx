// The form: one request to a task with an image, audio or texts, sent as any plain MQTT client would.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Connection } from "./connection";
import type { Answer, RouteDoc } from "./documents";
import { Field, type Given, encode } from "./inputs";
import type { Request, Site } from "./site";
import { Steps } from "./steps";
import { clock, inWords, ms, shown } from "./words";

type Asked = { task: string; transaction: string; at: number; deadline_s: number };
type State =
  | { kind: "idle" }
  | { kind: "wrong"; why: string }
  | { kind: "waiting"; asked: Asked }
  | { kind: "answered"; asked: Asked; answer: Answer };

/** A little more than the deadline, as the answer with the code `timeout` is sent after it. */
const PATIENCE_MS = 3_000;

export function Try({ site, connection }: { site: Site; connection: Connection }) {
  const tasks = [...site.tasks.values()].filter((task) => task.route).sort((a, b) => a.id.localeCompare(b.id));
  const [chosen, choose] = useState("");
  const [given, give] = useState<Record<string, Given>>({});
  const [state, setState] = useState<State>({ kind: "idle" });
  const task = tasks.find(({ id }) => id === chosen) ?? tasks[0];
  const route = task?.route;
  const now = Date.now();
  useAnswer(site.requests, state, setState, now);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (!task || !route) return;
    const asked = {
      task: task.id,
      transaction: `page-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`,
      at: Date.now(),
      deadline_s: route.deadline_s,
    };
    try {
      const inputs = await encode(route, given);
      setState({ kind: "waiting", asked });
      await connection.ask(task.id, JSON.stringify({ transaction: asked.transaction, inputs, stream: true }));
    } catch (error) {
      setState({ kind: "wrong", why: error instanceof Error ? error.message : "it could not be sent" });
    }
  };
  return (
    <section class="panel try" id="try" aria-labelledby="try-title" tabIndex={-1}>
      <h2 id="try-title">Try a task</h2>
      {tasks.length === 0 ? (
        <p class="quiet">No task can be asked yet.</p>
      ) : (
        <form onSubmit={submit} aria-busy={state.kind === "waiting"}>
          <div class="block">
            <label for="task">Task</label>
            <select
              id="task"
              name="task"
              value={task?.id}
              onChange={(e) => {
                if (e.currentTarget.value !== task?.id) give({});
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
            Ask
          </button>
          {connection.phase !== "online" && <p class="quiet">Not connected: nothing can be asked now.</p>}
        </form>
      )}
      <div role="status" class="outcome">
        <Outcome state={state} now={now} route={route} texts={site.texts} />
      </div>
    </section>
  );
}

/** Finds the answer to the page's request among the answers on the shared topic; ends after the deadline. */
function useAnswer(requests: readonly Request[], state: State, set: (next: State) => void, now: number): void {
  const looked = useRef(-1);
  useEffect(() => {
    if (state.kind !== "waiting") return;
    const { asked } = state;
    const fresh = requests.filter(({ key }) => key > looked.current);
    looked.current = requests.at(-1)?.key ?? looked.current;
    const found = fresh.find(({ task, answer }) => task === asked.task && answer.transaction === asked.transaction);
    if (found) set({ kind: "answered", asked, answer: found.answer });
    else if (now - asked.at > asked.deadline_s * 1000 + PATIENCE_MS)
      set({
        kind: "wrong",
        why: "No answer came in time. Either nobody serves this task now, or this login may not ask it.",
      });
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
            Asked {state.asked.task}, waiting {Math.max(0, Math.round((now - state.asked.at) / 1000))} s of at most{" "}
            {state.asked.deadline_s} s…
          </p>
        </>
      );
    case "answered":
      return <Answered asked={state.asked} answer={state.answer} route={route} />;
  }
}

function Answered({ asked, answer, route }: { asked: Asked; answer: Answer; route: RouteDoc | undefined }) {
  if (answer.status === "error")
    return <p class="error">✕ {answer.error ? inWords(answer.error) : "It failed, without a reason."}</p>;
  const others = Object.entries(answer.outputs).filter(([, value]) => value !== answer.answer);
  return (
    <>
      <p class="answer" data-answer={asked.task}>
        {shown(answer.answer, 2_000)}
      </p>
      <p class="quiet">
        {asked.task}, {clock(asked.at)}: {ms(answer.latency_ms)}
        {answer.attempts > 1 && `, in ${answer.attempts} attempts`}
      </p>
      <Steps answer={answer} route={route} />
      {others.length > 0 && (
        <details>
          <summary>Everything it said</summary>
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
