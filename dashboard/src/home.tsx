// What the house's cameras, buttons and microphones were answered: newest first, live, with a filter.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Connection } from "./connection";
import type { Entry } from "./house-documents";
import { Card } from "./entry";
import { EVERYTHING, type Filter, type History } from "./history";
import { act } from "./orders";
import type { Site } from "./site";
import { t } from "./texts";

type Props = { site: Site; history: History; connection: Connection; like: (entry: Entry) => void; setUp: () => void };

/** Pause after a key press before the bridge is asked, ms. */
const TYPED_MS = 300;
const HOURS = { all: 0, hour: 1, day: 24, week: 168 } as const;

/** Whether it is known which answers are kept: until then the house is not called empty. */
function isKnown(site: Site, history: History): boolean {
  return history.listed?.done !== undefined || history.state?.answers === 0 || (site.settled && !history.state);
}

export function Home({ site, history, connection, like, setUp }: Props) {
  const [open, setOpen] = useState<number | null>(null);
  const filtered = history.filter !== EVERYTHING;
  const toggle = (id: number) => setOpen((now) => (now === id ? null : id));
  const bridge = site.bridge?.state === "online";
  return (
    <section class="panel home" aria-labelledby="home-title">
      <h2 id="home-title">{t.home.title}</h2>
      <FilterBar site={site} history={history} connection={connection} />
      {!bridge && site.settled && <p class="quiet">{t.home.noBridge}</p>}
      {history.entries.length === 0 && isKnown(site, history) && (
        <div class="empty">
          <p class="quiet">{filtered ? t.home.noneFits : t.home.none}</p>
          {!filtered && (
            <button class="small" onClick={setUp}>
              {t.home.addFirst}
            </button>
          )}
        </div>
      )}
      <ul class="entries" aria-label={t.home.title}>
        {history.entries.map((entry) => (
          <Card
            key={entry.id}
            entry={entry}
            history={history}
            site={site}
            connection={connection}
            open={open === entry.id}
            toggle={toggle}
            like={like}
          />
        ))}
      </ul>
      {history.more && (
        <button class="small" onClick={() => connection.list(history.filter, true)}>
          {t.home.older}
        </button>
      )}
      <Kept site={site} history={history} connection={connection} />
    </section>
  );
}

function FilterBar({ site, history, connection }: Pick<Props, "site" | "history" | "connection">) {
  const [filter, setFilter] = useState<Filter>(history.filter);
  const typed = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(typed.current), []);
  const choose = (change: Partial<Filter>, pause = 0) => {
    const chosen = { ...filter, ...change };
    const next = Object.values(chosen).some(Boolean) ? chosen : EVERYTHING;
    setFilter(next);
    clearTimeout(typed.current);
    typed.current = setTimeout(() => connection.list(next), pause);
  };
  const tasks = [...new Set([...site.tasks.keys(), ...history.entries.map(({ task }) => task)])].sort();
  return (
    <details class="filter">
      <summary>{t.home.filter}</summary>
      <div class="filters">
        <label>
          {t.home.task}
          <select name="filter-task" value={filter.task} onChange={(e) => choose({ task: e.currentTarget.value })}>
            <option value="">{t.home.allTasks}</option>
            {tasks.map((task) => (
              <option key={task} value={task}>
                {task}
              </option>
            ))}
          </select>
        </label>
        <label>
          {t.home.source}
          <input
            name="filter-source"
            value={filter.source}
            onInput={(e) => choose({ source: e.currentTarget.value }, TYPED_MS)}
          />
        </label>
        <label>
          {t.home.words}
          <input
            name="filter-words"
            value={filter.words}
            onInput={(e) => choose({ words: e.currentTarget.value }, TYPED_MS)}
          />
        </label>
        <label>
          {t.home.time}
          <select
            name="filter-time"
            value={filter.hours}
            onChange={(e) => choose({ hours: Number(e.currentTarget.value) })}
          >
            {(Object.keys(HOURS) as (keyof typeof HOURS)[]).map((time) => (
              <option key={time} value={HOURS[time]}>
                {t.home.times[time]}
              </option>
            ))}
          </select>
        </label>
        {filter !== EVERYTHING && (
          <button class="small" onClick={() => choose(EVERYTHING)}>
            {t.home.clearFilter}
          </button>
        )}
      </div>
    </details>
  );
}

/** How much is kept, and its deletion. */
function Kept({ site, history, connection }: Pick<Props, "site" | "history" | "connection">) {
  const [sure, ask] = useState(false);
  const [said, say] = useState("");
  const { state } = history;
  if (!state) return null;
  const clear = async () => {
    ask(false);
    const response = await act.order(connection, site, "clear-history");
    say(typeof response === "string" ? response : t.home.cleared(Number(response.data["deleted"] ?? 0)));
  };
  return (
    <div class="kept">
      <p class="quiet">
        {t.home.kept(state.answers, state.mb, state.kept === "disk" ? t.home.onDisk : t.home.inMemory)}
      </p>
      {sure ? (
        <p>
          {t.home.clearSure}{" "}
          <button class="small danger" onClick={clear}>
            {t.setup.yes}
          </button>{" "}
          <button class="small" onClick={() => ask(false)}>
            {t.setup.no}
          </button>
        </p>
      ) : (
        state.answers > 0 && (
          <button class="small" onClick={() => ask(true)}>
            {t.home.clear}
          </button>
        )
      )}
      <p role="status">{said}</p>
    </div>
  );
}
