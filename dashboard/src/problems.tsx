// The current problems, at the top of the page: disconnected, outdated, no planner, lost nodes, failed modules.
import type { Connection } from "./connection";
import { type Site, present } from "./site";
import { clock, count, inWords, names } from "./words";

type Problem = { key: string; level: "error" | "warning"; text: string };

export function Problems({ site, connection }: { site: Site; connection: Connection }) {
  const problems = [...ofConnection(site, connection), ...(connection.phase === "online" ? ofSite(site) : [])];
  return (
    <div role="alert">
      <ul class="problems" aria-label="Problems">
        {problems.map(({ key, level, text }) => (
          <li key={key} class={level} data-problem={key}>
            <span class="mark" aria-hidden="true">
              {level === "error" ? "✕" : "!"}
            </span>
            <span>
              <b>{level === "error" ? "Problem" : "Note"}:</b> {text}
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
    const old = connection.lastHeard
      ? ` What you see is from ${clock(connection.lastHeard)} and may be out of date.`
      : "";
    problems.push({
      key: "offline",
      level: "error",
      text: `Disconnected since ${clock(connection.since)}. ${connection.reason}${old} Trying again each second.`,
    });
  }
  if (connection.phase === "refused") problems.push({ key: "refused", level: "error", text: connection.reason });
  if (connection.denied.length > 0)
    problems.push({
      key: "denied",
      level: "warning",
      text: `This login may not read ${names(connection.denied)}: that part stays empty.`,
    });
  const old = [...site.nodes.values()].filter((node) => node.round < site.round);
  if (connection.phase === "online" && old.length > 0)
    problems.push({
      key: "stale",
      level: "warning",
      text: `Not heard of again since the broker came back: ${names(old.map((node) => node.id))}. What is shown of ${old.length === 1 ? "it" : "them"} may be out of date.`,
    });
  return problems;
}

function ofSite(site: Site): Problem[] {
  const problems: Problem[] = [];
  if (site.planner === undefined && site.settled)
    problems.push({
      key: "planner",
      level: "warning",
      text: "Nothing is heard of a planner. Is one running, and may this login read its topics?",
    });
  if (site.planner?.state === "offline")
    problems.push({
      key: "planner",
      level: "warning",
      text: "The planner is offline. Requests go on, but nothing is placed again until it is back.",
    });
  const gone = [...site.nodes.values()].filter((node) => node.state && !present(node));
  const asleep = new Map(Object.entries(site.planner?.asleep ?? {}));
  for (const node of gone)
    if (asleep.has(node.id))
      problems.push({ key: `asleep ${node.id}`, level: "warning", text: `${node.id}: ${asleep.get(node.id)}.` });
  const lost = gone.filter((node) => !asleep.has(node.id));
  if (lost.length > 0)
    problems.push({
      key: "lost",
      level: "warning",
      text: `${count(lost.length, "node")} lost: ${names(lost.map((node) => node.id))}.`,
    });
  for (const task of site.tasks.values())
    if (task.route?.error)
      problems.push({ key: `task ${task.id}`, level: "error", text: `Task ${task.id}. ${inWords(task.route.error)}` });
  for (const module of site.modules().values())
    for (const copy of module.copies)
      if (copy.reason)
        problems.push({
          key: `module ${copy.module} ${copy.node}`,
          level: "error",
          text: `${copy.module} on ${copy.node}. ${inWords(copy.reason)}`,
        });
  return problems.length > MOST
    ? [...problems.slice(0, MOST), { key: "more", level: "warning", text: `${problems.length - MOST} more.` }]
    : problems;
}

const MOST = 6;
