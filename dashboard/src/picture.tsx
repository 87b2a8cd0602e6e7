// The picture of a kept answer, with a detector's boxes drawn on top of it.
import type { Box, Entry } from "./house-documents";
import type { History } from "./history";
import { t } from "./texts";

/** Boxes that are drawn; their labels are in the text of the answer, too. */
const MOST = 30;

export function Picture({ entry, history }: { entry: Entry; history: History }) {
  if (!entry.picture) return null;
  const url = history.picture(entry);
  return (
    <div class="picture">
      {url ? <img src={url} alt={t.home.picture(entry.task)} /> : <span class="loading" aria-hidden="true" />}
      {url && <Boxes boxes={entry.boxes} />}
    </div>
  );
}

function Boxes({ boxes }: { boxes: readonly Box[] }) {
  return (
    <div class="boxes" aria-hidden="true">
      {boxes.slice(0, MOST).map((box, index) => (
        <span key={index} data-box={box.label} style={place(box)}>
          <small>
            {box.label} {box.score.toFixed(2)}
          </small>
        </span>
      ))}
    </div>
  );
}

function place({ left, top, right, bottom }: Box): Record<string, string> {
  const percent = (value: number) => `${100 * value}%`;
  return { left: percent(left), top: percent(top), width: percent(right - left), height: percent(bottom - top) };
}
