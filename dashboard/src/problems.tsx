// The current problems, at the top of the page: disconnected, outdated, no planner, lost nodes, failed modules.
import type { Connection } from "./connection";
import { type Site, present } from "./site";
import { t } from "./texts";
import { clock, inWords } from "./words";

type Problem = { key: string; level: "error" | "warning"; text: string };

export function Problems({ site, connection }: { site: Site; connection: Connection }) {
  const problems = [...ofConnection(site, connection), ...(connection.phase === "online" ? ofSite(site) : [])];
  return (
    <div role="alert">
      <ul class="problems" aria-label={t.problems.label}>
        {problems.map(({ key, level, text }) => (
          <li key={key} class={level} data-problem={key}>
            <span class="mark" aria-hidden="true">
              {level === "error" ? "✕" : "!"}
            </span>
            <span>
              <b>{t.problems[level]}:</b> {text}
            </span>
          </li>
        ))}
      </ul>
    </div>
  );
}

function ofConnection(site: Site, connection: Connection): Problem[] {
  const problems: Problem[] = [];
  if (connection.phase === "offline") {
    const old = connection.lastHeard ? t.problems.oldSince(clock(connection.lastHeard)) : "";
    problems.push({
      key: "offline",
      level: "error",
      text: t.problems.offline(clock(connection.since), connection.reason, old),
    });
  }
  if (connection.phase === "refused") problems.push({ key: "refused", level: "error", text: connection.reason });
  if (connection.denied.length > 0)
    problems.push({
      key: "denied",
      level: "warning",
      text: t.problems.denied(connection.denied),
    });
  const old = [...site.nodes.values()].filter((node) => node.round < site.round);
  if (connection.phase === "online" && old.length > 0)
    problems.push({
      key: "stale",
      level: "warning",
      text: t.problems.stale(old.map((node) => node.id)),
    });
  return problems;
}

function ofSite(site: Site): Problem[] {
  const problems: Problem[] = [];
  if (site.planner === undefined && site.settled)
    problems.push({
      key: "planner",
      level: "warning",
      text: t.problems.noPlanner,
    });
  if (site.planner?.state === "offline")
    problems.push({
      key: "planner",
      level: "warning",
      text: t.problems.plannerOff,
    });
  const gone = [...site.nodes.values()].filter((node) => node.state && !present(node));
  const asleep = new Map(Object.entries(site.planner?.asleep ?? {}));
  for (const node of gone)
    if (asleep.has(node.id))
      problems.push({
        key: `asleep ${node.id}`,
        level: "warning",
        text: t.problems.asleep(node.id, asleep.get(node.id)!),
      });
  const lost = gone.filter((node) => !asleep.has(node.id));
  if (lost.length > 0)
    problems.push({
      key: "lost",
      level: "warning",
      text: t.problems.lost(lost.map((node) => node.id)),
    });
  for (const [node, why] of Object.entries(site.planner?.held ?? {}))
    problems.push({ key: `held ${node}`, level: "warning", text: t.problems.held(node, why) });
  for (const { id, binding, report } of site.rules.values())
    if (binding && report?.error)
      problems.push({ key: `rule ${id}`, level: "error", text: t.problems.binding(id, inWords(report.error)) });
  for (const task of site.tasks.values())
    if (task.route?.error)
      problems.push({
        key: `task ${task.id}`,
        level: "error",
        text: t.problems.task(task.id, inWords(task.route.error)),
      });
  for (const module of site.modules().values())
    for (const copy of module.copies)
      if (copy.reason)
        problems.push({
          key: `module ${copy.module} ${copy.node}`,
          level: "error",
          text: t.problems.module(copy.module, copy.node, inWords(copy.reason)),
        });
  return problems.length > MOST
    ? [...problems.slice(0, MOST), { key: "more", level: "warning", text: t.problems.more(problems.length - MOST) }]
    : problems;
}

const MOST = 6;
