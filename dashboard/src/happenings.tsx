// The list of events, newest first.
import type { Site } from "./site";
import { clock, eventInWords } from "./words";

const SHOWN = 12;

export function Happenings({ site }: { site: Site }) {
  const latest = site.happenings.slice(-SHOWN).reverse();
  return (
    <section class="panel" aria-labelledby="log-title">
      <h2 id="log-title">What happened</h2>
      {latest.length === 0 && <p class="quiet">Nothing since this page was opened.</p>}
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
