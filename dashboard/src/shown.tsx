// An answer's value for people: text as text, a picture as a picture, a sound to play, the best of several pictures.
import { useEffect, useState } from "preact/hooks";
import { t } from "./texts";
import { isFile, shown } from "./words";

/** The first bytes of a file -> its type. Anything else stays the word for a file. */
const KINDS: readonly [start: string, type: string][] = [
  ["\xff\xd8\xff", "image/jpeg"],
  ["\x89PNG", "image/png"],
  ["GIF8", "image/gif"],
  ["RIFF", "audio/wav"],
];

type Props = {
  value: unknown;
  /** the pictures that were asked about, if the value is the number of one of them, from 0 */
  of?: readonly File[];
};

export function Shown({ value, of }: Props) {
  if (of !== undefined && typeof value === "number") return <Best number={value} picture={of[value]} />;
  if (isFile(value)) return <Media base64={value.base64} />;
  return <>{shown(value, 2_000)}</>;
}

function Best({ number, picture }: { number: number; picture: File | undefined }) {
  const url = useUrl(picture);
  return (
    <>
      {t.ask.best(number + 1)}
      {url && <img class="best" src={url} alt={picture?.name ?? ""} />}
    </>
  );
}

function Media({ base64 }: { base64: string }) {
  const [file, setFile] = useState<Blob>();
  useEffect(() => setFile(decoded(base64)), [base64]);
  const url = useUrl(file);
  if (!file || !url) return <>{t.words.file}</>;
  return file.type.startsWith("audio/") ? (
    <audio controls src={url} aria-label={t.words.file} />
  ) : (
    <img class="best" src={url} alt={t.words.file} />
  );
}

/** The blob URL of a file while it is shown. */
function useUrl(file: Blob | undefined): string | undefined {
  const [url, setUrl] = useState<string>();
  useEffect(() => {
    if (!file) return setUrl(undefined);
    const made = URL.createObjectURL(file);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [file]);
  return url;
}

/** A file whose type is known by its first bytes; never SVG or HTML, which could hold code. */
function decoded(base64: string): Blob | undefined {
  let text: string;
  try {
    text = atob(base64);
  } catch {
    return undefined; // not base64
  }
  const type = text.startsWith("RIFF") && text.slice(8, 12) === "WEBP" ? "image/webp" : kindOf(text);
  return type ? new Blob([Uint8Array.from(text, (letter) => letter.charCodeAt(0))], { type }) : undefined;
}

function kindOf(text: string): string | undefined {
  return KINDS.find(([start]) => text.startsWith(start))?.[1];
}
