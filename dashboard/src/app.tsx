// The whole page, from top to bottom; a function of site and connection.
import { useState } from "preact/hooks";
import { Board } from "./board";
import type { Config, Connection } from "./connection";
import { Happenings } from "./happenings";
import { Login } from "./login";
import { Modules } from "./modules";
import { Problems } from "./problems";
import { Requests } from "./requests";
import { type Picked, type Site, present } from "./site";
import { Try } from "./try";
import { count, mb } from "./words";

type Props = { site: Site; connection: Connection; config: Config };

export function App({ site, connection, config }: Props) {
  const [picked, pick] = useState<Picked>(null);
  const toggle = (next: NonNullable<Picked>) =>
    pick((now) => (now?.kind === next.kind && now.id === next.id ? null : next));
  const stale = connection.phase !== "online";
  return (
    <>
      <a class="skip" href="#try">
        Skip to the form
      </a>
      <Header site={site} connection={connection} />
      <main class={stale ? "stale" : ""}>
        <Problems site={site} connection={connection} />
        {connection.mayNeedLogin && !config.username && <Login connection={connection} url={config.url} />}
        <div class="columns">
          <div class="main">
            <Board site={site} picked={picked} toggle={toggle} stale={stale} />
            <Requests site={site} />
            <Modules site={site} picked={picked} toggle={toggle} />
          </div>
          <div class="side">
            <Try site={site} connection={connection} />
            <Happenings site={site} />
          </div>
        </div>
      </main>
      <footer>
        {connection.lastHeard > 0 && `Reads ${config.url}, topics under ${config.root}.`}
        {site.unread.count > 0 &&
          ` ${count(site.unread.count, "message")} could not be read; the last: ${site.unread.last}`}
      </footer>
    </>
  );
}

const PHASES = {
  online: ["✓", "connected"],
  connecting: ["…", "connecting"],
  offline: ["✕", "disconnected"],
  refused: ["✕", "login refused"],
} as const;

function Header({ site, connection }: Omit<Props, "config">) {
  const [mark, word] = PHASES[connection.phase];
  const there = [...site.nodes.values()].filter((node) => present(node)).length;
  const saved = site.saved();
  const shared = [...site.modules().values()].filter((module) => module.tasks.length > 1).length;
  return (
    <header>
      <h1>
        <img src="icon.svg" alt="" width="28" height="28" /> S2M3
      </h1>
      <p class={`pill ${connection.phase}`} role="status" data-phase={connection.phase}>
        <span aria-hidden="true">{mark}</span> {word}
      </p>
      <dl class="figures">
        <Figure
          name={there === 1 ? "node" : "nodes"}
          value={`${there}`}
          of={site.nodes.size > there ? ` of ${site.nodes.size}` : ""}
        />
        <Figure name="tasks" value={`${site.tasks.size}`} />
        <Figure name="modules" value={`${site.modules().size}`} />
        <Figure name="of them shared" value={`${shared}`} />
        <Figure name="saved by sharing" value={mb(saved)} />
      </dl>
    </header>
  );
}

function Figure({ name, value, of = "" }: { name: string; value: string; of?: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        {value}
        <small>{of}</small>
      </dd>
    </div>
  );
}
