// Counts and lists as words; used by the texts of a language.

export function count(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`;
}

/** Joins names: "a", "a and b", "a, b and 3 more". */
export function names(all: readonly string[], most = 4, and = "and", more = "more"): string {
  if (all.length > most) return `${all.slice(0, most - 1).join(", ")} ${and} ${all.length - most + 1} ${more}`;
  return all.length < 2 ? (all[0] ?? "") : `${all.slice(0, -1).join(", ")} ${and} ${all.at(-1)}`;
}
