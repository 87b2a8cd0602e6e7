// What a household changes: rules for cameras and buttons, tasks, devices. The broker's access list decides who may.
import { useState } from "preact/hooks";
import type { Connection } from "./connection";
import { Devices } from "./devices";
import { act } from "./orders";
import type { Draft } from "./rule";
import type { Rule, Site } from "./site";
import { Sure } from "./sure";
import { Tasks } from "./tasks";
import { t } from "./texts";
import { Wizard } from "./wizard";
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
