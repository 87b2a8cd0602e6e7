// What a household changes: rules for cameras and buttons, tasks, devices. The broker's access list decides who may.
import { useState } from "preact/hooks";
import type { Connection } from "./connection";
import { act } from "./orders";
import { type Rule, type Site, present } from "./site";
import { t } from "./texts";
import { Wizard, type Draft } from "./wizard";
import { inWords, todo } from "./words";

type Props = { site: Site; connection: Connection; draft: Draft | null; setDraft: (draft: Draft | null) => void };

export function Setup({ site, connection, draft, setDraft }: Props) {
  const [said, say] = useState("");
  const rules = [...site.rules.values()].filter(({ binding }) => binding).sort((a, b) => a.id.localeCompare(b.id));
  return (
    <>
      <section class="panel setup" aria-labelledby="rules-title">
        <h2 id="rules-title">{t.setup.rules}</h2>
        {draft ? (
          <Wizard site={site} connection={connection} draft={draft} close={() => setDraft(null)} />
        ) : (
          <button class="small primary" onClick={() => setDraft({})}>
            {t.setup.add}
          </button>
        )}
        {rules.length === 0 && <p class="quiet">{t.setup.rulesNone}</p>}
        <ul class="rules">
          {rules.map((rule) => (
            <RuleRow
              key={rule.id}
              rule={rule}
              site={site}
              connection={connection}
              edit={() => setDraft({ rule })}
              say={say}
            />
          ))}
        </ul>
        <p role="status" class="said">
          {said}
        </p>
      </section>
      <Tasks site={site} connection={connection} />
      <Devices site={site} connection={connection} />
    </>
  );
}

type RuleProps = { rule: Rule; site: Site; connection: Connection; edit: () => void; say: (what: string) => void };

function RuleRow({ rule, site, connection, edit, say }: RuleProps) {
  const binding = rule.binding!;
  const { report } = rule;
  const paused = binding.whole["paused"] === true;
  const state = paused ? "paused" : (report?.state ?? "waiting");
  const change = async () => {
    const body = JSON.stringify({ ...binding.whole, paused: !paused });
    const has = () => (site.rules.get(rule.id)?.binding?.whole["paused"] === true) === !paused;
    say((await act.retain(connection, `bind/${rule.id}`, body, has)) || t.setup.done);
  };
  const remove = async () => {
    const gone = () => !site.rules.get(rule.id)?.binding;
    say((await act.retain(connection, `bind/${rule.id}`, "", gone)) || t.setup.done);
  };
  return (
    <li data-rule={rule.id} data-state={state}>
      <div>
        <b>{rule.id}</b> <span class={`state ${state}`}>{t.setup.states[state]}</span>
        <p class="way">{t.setup.rule(binding.source, binding.task, binding.publish)}</p>
        <p class="quiet">
          {[
            t.setup.everySeconds(binding.every_s),
            t.setup.only(binding.labels, binding.above),
            report && t.setup.counts(report.received, report.answered, report.failed),
          ]
            .filter(Boolean)
            .join("; ")}
        </p>
        {report?.error && <p class="error">✕ {`${inWords(report.error)} ${todo(report.error)}`}</p>}
        {!report?.error && report?.last_error && <p class="error">{inWords(report.last_error)}</p>}
      </div>
      <div class="actions">
        <button class="small" onClick={change}>
          {paused ? t.setup.resume : t.setup.pause}
        </button>
        <button class="small" onClick={edit}>
          {t.setup.edit}
        </button>
        <Sure what={rule.id} word={t.setup.remove} does={remove} />
      </div>
    </li>
  );
}

/** A button that asks once more. */
function Sure({ what, word, does }: { what: string; word: string; does: () => void }) {
  const [asks, ask] = useState(false);
  if (!asks)
    return (
      <button class="small" onClick={() => ask(true)} aria-label={`${word}: ${what}`}>
        {word}
      </button>
    );
  return (
    <span class="sure">
      {t.setup.sure(what)}{" "}
      <button
        class="small danger"
        onClick={() => {
          ask(false);
          does();
        }}
      >
        {t.setup.yes}
      </button>{" "}
      <button class="small" onClick={() => ask(false)}>
        {t.setup.no}
      </button>
    </span>
  );
}

function Tasks({ site, connection }: { site: Site; connection: Connection }) {
  const [said, say] = useState("");
  const tasks = [...site.tasks.values()].sort((a, b) => a.id.localeCompare(b.id));
  const remove = async (task: string) =>
    say((await act.retain(connection, `task/${task}`, "", () => !site.tasks.get(task)?.spec)) || t.setup.done);
  return (
    <section class="panel setup" aria-labelledby="setup-tasks">
      <h2 id="setup-tasks">{t.setup.tasks}</h2>
      <ul class="rules compact">
        {tasks.map((task) => (
          <li key={task.id}>
            <div>
              <b>{task.id}</b>{" "}
              <span class={`state ${site.ready(task) ? "active" : "refused"}`}>
                {site.ready(task) ? `✓ ${t.board.ready}` : `✕ ${t.board.notReady}`}
              </span>
              <p class="quiet">{(task.route && t.models[task.route.model]) || task.route?.description}</p>
              {task.route?.error && <p class="error">{`${inWords(task.route.error)} ${todo(task.route.error)}`}</p>}
            </div>
            <div class="actions">
              <Sure what={task.id} word={t.setup.remove} does={() => void remove(task.id)} />
            </div>
          </li>
        ))}
      </ul>
      <p role="status" class="said">
        {said}
      </p>
    </section>
  );
}

function Devices({ site, connection }: { site: Site; connection: Connection }) {
  const [said, say] = useState("");
  const nodes = [...site.nodes.values()].sort((a, b) => a.id.localeCompare(b.id));
  const order = async (verb: string, more: object = {}) => {
    const response = await act.order(connection, site, verb, more);
    say(typeof response === "string" ? response : t.setup.done);
  };
  /** Clears what a device that is gone has left, as `s2m3 forget` does. */
  const forget = async (node: string) => {
    for (const left of ["reported", "profile", "state"]) {
      const gone = () => !site.nodes.get(node)?.[left as "state"];
      const why = await act.retain(connection, `node/${node}/${left}`, "", gone);
      if (why) return say(why);
    }
    say(t.setup.done);
  };
  return (
    <section class="panel setup" aria-labelledby="setup-devices">
      <h2 id="setup-devices">{t.setup.devices}</h2>
      <div class="actions">
        <button class="small" onClick={() => order("replan")}>
          {t.setup.replan}
        </button>
        <button class="small" onClick={() => order("profile")}>
          {t.setup.measure}
        </button>
      </div>
      <ul class="rules compact">
        {nodes.map((node) => (
          <li key={node.id}>
            <div>
              <b>{node.id}</b> <span class="quiet">{t.board.states[node.state?.state ?? "unknown"]}</span>
            </div>
            <div class="actions">
              {present(node) ? (
                node.state?.state === "ready" && (
                  <button
                    class="small"
                    aria-label={`${t.setup.drain}: ${node.id}`}
                    title={t.setup.drainWhat}
                    onClick={() => order("drain", { node: node.id })}
                  >
                    {t.setup.drain}
                  </button>
                )
              ) : (
                <Sure what={node.id} word={t.setup.forget} does={() => void forget(node.id)} />
              )}
            </div>
          </li>
        ))}
      </ul>
      <p class="quiet">{t.setup.drainWhat}</p>
      <p role="status" class="said">
        {said}
      </p>
    </section>
  );
}
