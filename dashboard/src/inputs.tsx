// A form field for each input of a task, by its kind, and the conversion of the values to a plain request.
import { useEffect, useState } from "preact/hooks";
import { Camera, Microphone } from "./capture";
import type { RouteDoc } from "./documents";
import { base64, picture, sound } from "./media";
import { t } from "./texts";

/** The user's value for one input: files for images and audio, otherwise text. */
export type Given = { files: File[]; text: string };
type Props = {
  name: string;
  kind: string;
  usual: unknown;
  given: Given | undefined;
  give: (value: Given) => void;
  failed: (why: string) => void;
};

export function Field({ name, kind, usual, given, give, failed }: Props) {
  const hint = usual === undefined ? "" : t.ask.usual;
  const word = (t.ask.kinds as Record<string, string>)[kind] ?? (kind === "chat" ? "text" : kind);
  const files = given?.files ?? [];
  const add = (more: File[]) => give({ text: "", files: kind === "images" ? [...files, ...more] : more.slice(0, 1) });
  switch (kind) {
    case "image":
    case "images":
    case "audio":
      return (
        <fieldset>
          <legend>
            {name}{" "}
            <small>
              {word}
              {hint && `; ${hint}`}
            </small>
          </legend>
          <label class="file">
            <span>{t.ask.choose[kind]}</span>
            <input
              type="file"
              name={name}
              accept={kind === "audio" ? "audio/*,.flac,.ogg,.wav" : "image/*"}
              multiple={kind === "images"}
              onChange={(e) => {
                add([...(e.currentTarget.files ?? [])]);
                e.currentTarget.value = "";
              }}
            />
          </label>
          {kind === "audio" ? (
            <Microphone taken={(file) => add([file])} failed={failed} />
          ) : (
            <Camera taken={(file) => add([file])} failed={failed} />
          )}
          <Previews files={files} kind={kind} />
          {files.length > 0 && kind === "images" && (
            <button type="button" onClick={() => give({ files: [], text: "" })}>
              {t.ask.removeAll}
            </button>
          )}
        </fieldset>
      );
    case "tensor":
      return <p class="quiet">{t.ask.tensor(name)}</p>;
    default:
      return (
        <label class="block">
          {name}{" "}
          <small>
            {word}
            {hint && `; ${hint}`}
          </small>
          {kind === "texts" ? (
            <textarea
              name={name}
              rows={4}
              value={given?.text ?? ""}
              placeholder={placeholder(usual)}
              onInput={(e) => give({ files: [], text: e.currentTarget.value })}
            />
          ) : (
            <input
              name={name}
              inputMode={kind === "number" ? "decimal" : "text"}
              value={given?.text ?? ""}
              placeholder={placeholder(usual)}
              onInput={(e) => give({ files: [], text: e.currentTarget.value })}
            />
          )}
        </label>
      );
  }
}

/** Previews of files: <img> and <audio> never run scripts from a file. */
function Previews({ files, kind }: { files: File[]; kind: string }) {
  const [urls, setUrls] = useState<string[]>([]);
  useEffect(() => {
    const made = files.map((file) => URL.createObjectURL(file));
    setUrls(made);
    return () => made.forEach((url) => URL.revokeObjectURL(url));
  }, [files]);
  return (
    <div class="previews">
      {urls.map((url, index) =>
        kind === "audio" ? (
          <audio key={url} controls src={url} aria-label={files[index]?.name} />
        ) : (
          <img key={url} src={url} alt={files[index]?.name ?? ""} />
        ),
      )}
    </div>
  );
}

function placeholder(usual: unknown): string {
  if (Array.isArray(usual))
    return usual
      .filter((one) => typeof one === "string")
      .join("\n")
      .slice(0, 400);
  return typeof usual === "string" ? usual.slice(0, 200) : "";
}

/** Returns the `inputs` of a plain request; throws an Error whose text says what is missing or unreadable. */
export async function encode(route: RouteDoc, given: Record<string, Given>): Promise<Record<string, unknown>> {
  const inputs: Record<string, unknown> = {};
  for (const [name, kind] of Object.entries(route.inputs)) {
    const { files = [], text = "" } = given[name] ?? {};
    if (files.length === 0 && text.trim() === "") {
      if (route.defaults[name] === undefined) throw new Error(t.ask.missing(name));
      continue;
    }
    inputs[name] = await value(kind, files, text);
  }
  return inputs;
}

async function value(kind: string, files: readonly File[], text: string): Promise<unknown> {
  const encoded = async (file: File) => ({ base64: base64(await (kind === "audio" ? sound(file) : picture(file))) });
  switch (kind) {
    case "image":
    case "audio":
      return encoded(files[0]!);
    case "images":
      return Promise.all(files.map(encoded));
    case "texts":
      return text
        .split("\n")
        .map((line) => line.trim())
        .filter(Boolean);
    case "number": {
      if (Number.isNaN(Number(text))) throw new Error(t.ask.notNumber(text));
      return Number(text);
    }
    case "data":
      try {
        return JSON.parse(text);
      } catch {
        return text;
      }
    default:
      return text;
  }
}
