// The list of events, newest first.
import type { Site } from "./site";
import { t } from "./texts";
import { clock, eventInWords } from "./words";

const SHOWN = 12;

export function Happenings({ site }: { site: Site }) {
  const latest = site.happenings.slice(-SHOWN).reverse();
  return (
    <section class="panel" aria-labelledby="log-title">
      <h2 id="log-title">{t.log.title}</h2>
      {latest.length === 0 && <p class="quiet">{t.log.none}</p>}
      <ol class="log">
        {latest.map(({ key, at, event }) => (
          <li key={key}>
            <time>{clock(at)}</time> <span>{eventInWords(event)}</span>
          </li>
        ))}
      </ol>
    </section>
  );
}
