// The table of modules: the board's content as text, with the tasks that share each module.
import type { Copy, Module, Picked, Site } from "./site";
import { t } from "./texts";
import { mb, ms, role } from "./words";

type Props = { site: Site; picked: Picked; toggle: (next: NonNullable<Picked>) => void };

export function Modules({ site, picked, toggle }: Props) {
  const modules = [...site.modules().values()].sort(
    (a, b) => b.tasks.length - a.tasks.length || a.id.localeCompare(b.id),
  );
  return (
    <section class="panel" aria-labelledby="modules-title">
      <h2 id="modules-title">{t.modules.title}</h2>
      <div class="scroll" tabIndex={0} role="region" aria-labelledby="modules-title">
        <table class="modules">
          <thead>
            <tr>
              {t.modules.columns.map((column) => (
                <th key={column} scope="col">
                  {column}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {modules.map((module) => (
              <tr
                key={module.id}
                data-module={module.id}
                class={picked?.kind === "module" && picked.id === module.id ? "picked" : ""}
              >
                <th scope="row">
                  <button
                    class="plain"
                    aria-pressed={picked?.kind === "module" && picked.id === module.id}
                    onClick={() => toggle({ kind: "module", id: module.id })}
                  >
                    {module.id}
                  </button>
                </th>
                <td>{role(module.role).word}</td>
                <td class="number">{mb(module.weights_mb)}</td>
                <td>{usedBy(module)}</td>
                <td>{module.copies.length === 0 ? <b>{t.modules.nowhere}</b> : module.copies.map(where).join(", ")}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function usedBy({ tasks }: Module): string {
  return tasks.length === 0
    ? t.modules.noTask
    : `${tasks.length > 1 ? t.modules.tasks(tasks.length) : ""}${tasks.join(", ")}`;
}

function where(copy: Copy): string {
  if (copy.state !== "ready") return `${copy.node} (${t.modules.states[copy.state]})`;
  return copy.ms > 0 ? `${copy.node} (${ms(copy.ms)})` : copy.node;
}
