// The picture of a kept answer, with a detector's boxes drawn on top of it.
import type { Box, Entry } from "./house-documents";
import { t } from "./texts";

/** Boxes that are drawn; their labels are in the text of the answer, too. */
const MOST = 30;

export function Picture({ entry, url }: { entry: Entry; url: string | undefined }) {
  if (!entry.picture) return null;
  return (
    <div class="picture">
      {url ? (
        <div class="frame">
          <img src={url} alt={t.home.picture(entry.task)} />
          <Boxes boxes={entry.boxes} />
        </div>
      ) : (
        <span class="loading" aria-hidden="true" />
      )}
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
