// A box above a long list: what is typed there is looked for in it.
type Props = { label: string; sought: string; seek: (sought: string) => void };

export function Search({ label, sought, seek }: Props) {
  return (
    <input
      type="search"
      class="search"
      value={sought}
      placeholder={label}
      aria-label={label}
      onInput={(e) => seek(e.currentTarget.value)}
    />
  );
}
