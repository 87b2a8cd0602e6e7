// The login form. User and password are kept in the page's memory only, and sent to the broker only.
import { useState } from "preact/hooks";
import type { Connection } from "./connection";

export function Login({ connection, url }: { connection: Connection; url: string }) {
  const [username, setUsername] = useState("");
  const [password, setPassword] = useState("");
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    connection.start({ username, password });
  };
  return (
    <section class="panel login" aria-labelledby="login-title">
      <h2 id="login-title">Log in to the broker</h2>
      <p>At {url}. Any user that may read the site will do; one that may ask can also try tasks.</p>
      <form onSubmit={submit}>
        <label>
          User{" "}
          <input
            name="username"
            autocomplete="username"
            value={username}
            onInput={(e) => setUsername(e.currentTarget.value)}
          />
        </label>
        <label>
          Password{" "}
          <input
            type="password"
            name="password"
            autocomplete="current-password"
            value={password}
            onInput={(e) => setPassword(e.currentTarget.value)}
          />
        </label>
        <button class="primary">Log in</button>
      </form>
    </section>
  );
}
