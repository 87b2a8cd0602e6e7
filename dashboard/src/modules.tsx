// The table of modules: the board's content as text, with the tasks that share each module.
import type { Copy, Module, Picked, Site } from "./site";
import { mb, ms, role } from "./words";

type Props = { site: Site; picked: Picked; toggle: (next: NonNullable<Picked>) => void };

export function Modules({ site, picked, toggle }: Props) {
  const modules = [...site.modules().values()].sort(
    (a, b) => b.tasks.length - a.tasks.length || a.id.localeCompare(b.id),
  );
  return (
    <section class="panel" aria-labelledby="modules-title">
      <h2 id="modules-title">Modules and who shares them</h2>
      <div class="scroll" tabIndex={0} role="region" aria-labelledby="modules-title">
        <table class="modules">
          <thead>
            <tr>
              <th scope="col">Module</th>
              <th scope="col">Kind</th>
              <th scope="col">Weights</th>
              <th scope="col">Used by</th>
              <th scope="col">On</th>
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
                <td>{module.copies.length === 0 ? <b>nowhere</b> : module.copies.map(where).join(", ")}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function usedBy({ tasks }: Module): string {
  return tasks.length === 0 ? "no task" : `${tasks.length > 1 ? `${tasks.length} tasks: ` : ""}${tasks.join(", ")}`;
}

function where(copy: Copy): string {
  if (copy.state !== "ready") return `${copy.node} (${copy.state})`;
  return copy.ms > 0 ? `${copy.node} (${ms(copy.ms)})` : copy.node;
}
