// The devices of a site, and what can be ordered: take out, bring back, forget, put to sleep, wake, measure again, plan again.
import { useState } from "preact/hooks";
import type { Connection } from "./connection";
import { act } from "./orders";
import { Search } from "./search";
import { type Node, type Site, present } from "./site";
import { Sure } from "./sure";
import { t } from "./texts";

/** With more devices than this, they can be searched, and only the first ones are shown. */
const MANY = 16;

export function Devices({ site, connection }: { site: Site; connection: Connection }) {
  const [said, say] = useState("");
  const [sought, seek] = useState("");
  const all = [...site.nodes.values()].sort((a, b) => a.id.localeCompare(b.id));
  const nodes = all.filter(({ id }) => id.includes(sought.trim().toLowerCase())).slice(0, MANY);
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
      {all.length > MANY && <Search label={t.setup.searchDevices} sought={sought} seek={seek} />}
      <ul class="rules compact">
        {nodes.map((node) => (
          <Device key={node.id} node={node} asleep={site.planner?.asleep[node.id]} order={order} forget={forget} />
        ))}
      </ul>
      <p class="quiet">{t.setup.drainWhat}</p>
      <p role="status" class="said">
        {said}
      </p>
    </section>
  );
}

type DeviceProps = {
  node: Node;
  /** what is done about it, if it sleeps and can be woken */
  asleep: string | undefined;
  order: (verb: string, more: object) => Promise<void>;
  forget: (node: string) => Promise<void>;
};

function Device({ node, asleep, order, forget }: DeviceProps) {
  const button = (verb: string, word: string, what: string) => (
    <button
      class="small"
      aria-label={`${word}: ${node.id}`}
      title={what}
      onClick={() => order(verb, { node: node.id })}
    >
      {word}
    </button>
  );
  const ready = present(node) && node.state?.state === "ready";
  const draining = node.state?.state === "draining";
  return (
    <li data-device={node.id}>
      <div>
        <b>{node.id}</b> <span class="quiet">{asleep ?? t.board.states[node.state?.state ?? "unknown"]}</span>
      </div>
      <div class="actions">
        {asleep !== undefined && button("wake", t.setup.wake, t.setup.wakeWhat)}
        {ready && node.profile?.sleeps && button("sleep", t.setup.sleep, t.setup.sleepWhat)}
        {ready && button("drain", t.setup.drain, t.setup.drainWhat)}
        {draining && button("undrain", t.setup.undrain, t.setup.undrainWhat)}
        {!present(node) && <Sure what={node.id} word={t.setup.forget} does={() => void forget(node.id)} />}
      </div>
    </li>
  );
}
