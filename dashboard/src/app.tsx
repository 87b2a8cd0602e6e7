// The whole page: its views, and what they have in common. A function of site, history and connection.
import { useEffect, useState } from "preact/hooks";
import { Board } from "./board";
import type { Config, Connection } from "./connection";
import { Find } from "./find";
import { Happenings } from "./happenings";
import type { Entry } from "./house-documents";
import type { History } from "./history";
import { Home } from "./home";
import { Login } from "./login";
import { Modules } from "./modules";
import { Problems } from "./problems";
import { Requests } from "./requests";
import { Setup } from "./setup";
import { type Picked, type Site, present } from "./site";
import { changeLanguage, t } from "./texts";
import { Try } from "./try";
import type { Draft } from "./rule";
import { mb } from "./words";

type Props = { site: Site; history: History; connection: Connection; config: Config; changed: () => void };
const VIEWS = ["home", "ask", "find", "do", "understand"] as const;
export type View = (typeof VIEWS)[number];
const ICONS: Record<View, string> = { home: "⌂", ask: "?", find: "⌕", do: "+", understand: "◫" };

export function App({ site, history, connection, config, changed }: Props) {
  const [view, show] = useView();
  const [picked, pick] = useState<Picked>(null);
  const toggle = (next: NonNullable<Picked>) =>
    pick((now) => (now?.kind === next.kind && now.id === next.id ? null : next));
  const [draft, setDraft] = useState<Draft | null>(null);
  const stale = connection.phase !== "online";
  const like = (entry: Entry) => {
    connection.search({ like: entry.id });
    show("find");
  };
  const setUp = (begin: Draft) => {
    setDraft(begin);
    show("do");
  };
  return (
    <>
      <a class="skip" href="#content">
        {t.skip}
      </a>
      <Header view={view} show={show} connection={connection} changed={changed} />
      <main id="content" tabIndex={-1} class={`${view} ${stale ? "stale" : ""}`}>
        <Problems site={site} connection={connection} />
        {connection.mayNeedLogin && !config.username && <Login connection={connection} url={config.url} />}
        <div class="columns">
          <div class="main">
            {(view === "home" || view === "ask") && (
              <Home site={site} history={history} connection={connection} like={like} setUp={() => setUp({})} />
            )}
            {view === "find" && (
              <Find
                key={history.sought?.transaction}
                site={site}
                history={history}
                connection={connection}
                like={like}
                trigger={(words) => setUp({ words })}
              />
            )}
            {view === "do" && <Setup site={site} connection={connection} draft={draft} setDraft={setDraft} />}
            {view === "understand" && (
              <>
                <Figures site={site} />
                <Board site={site} picked={picked} toggle={toggle} stale={stale} />
                <Requests site={site} />
                <Modules site={site} picked={picked} toggle={toggle} />
                <Happenings site={site} />
              </>
            )}
          </div>
          <div class="side">
            <Try site={site} connection={connection} />
          </div>
        </div>
      </main>
      <footer>
        {connection.lastHeard > 0 && t.reads(config.url, config.root)}
        {site.unread.count > 0 && t.unread(site.unread.count, site.unread.last)}
      </footer>
    </>
  );
}

/** The view is in the address, so that it survives a reload and the browser's back button works. */
function useView(): [View, (view: View) => void] {
  const named = (): View => VIEWS.find((view) => `#${view}` === location.hash) ?? "home";
  const [view, set] = useState<View>(named);
  useEffect(() => {
    const look = () => set(named());
    addEventListener("hashchange", look);
    return () => removeEventListener("hashchange", look);
  }, []);
  return [view, (next) => (location.hash = next)];
}

type HeaderProps = { view: View; show: (view: View) => void; connection: Connection; changed: () => void };
const MARKS = { online: "✓", connecting: "…", offline: "✕", refused: "✕" } as const;

function Header({ view, show, connection, changed }: HeaderProps) {
  const { phase } = connection;
  return (
    <header>
      <h1>
        <img src="icon.svg" alt="" width="28" height="28" /> {t.title}
      </h1>
      <p class={`pill ${phase}`} role="status" data-phase={phase}>
        <span aria-hidden="true">{MARKS[phase]}</span> {t.phases[phase]}
      </p>
      <nav>
        {VIEWS.map((name) => (
          <a
            key={name}
            class={name === "ask" ? "narrow" : ""}
            href={`#${name}`}
            aria-current={view === name ? "page" : undefined}
            onClick={() => show(name)}
          >
            <span aria-hidden="true">{ICONS[name]}</span> {t.views[name]}
          </a>
        ))}
      </nav>
      <button
        class="plain language"
        onClick={() => {
          changeLanguage();
          changed();
        }}
      >
        {t.otherLanguage}
      </button>
    </header>
  );
}

function Figures({ site }: { site: Site }) {
  const there = [...site.nodes.values()].filter((node) => present(node)).length;
  const modules = [...site.modules().values()];
  const shared = modules.filter((module) => module.tasks.length > 1).length;
  const of = site.nodes.size > there ? t.figures.of(site.nodes.size) : "";
  return (
    <dl class="figures panel">
      <Figure name={there === 1 ? t.figures.node : t.figures.nodes} value={`${there}`} of={of} />
      <Figure name={t.figures.tasks} value={`${site.tasks.size}`} />
      <Figure name={t.figures.modules} value={`${modules.length}`} />
      <Figure name={t.figures.shared} value={`${shared}`} />
      <Figure name={t.figures.saved} value={mb(site.saved())} />
    </dl>
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
