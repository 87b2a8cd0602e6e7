// The login form. User and password are kept in the page's memory only, and sent to the broker only.
import { useState } from "preact/hooks";
import type { Connection } from "./connection";
import { t } from "./texts";

export function Login({ connection, url }: { connection: Connection; url: string }) {
  const [username, setUsername] = useState("");
  const [password, setPassword] = useState("");
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    connection.start({ username, password });
  };
  return (
    <section class="panel login" aria-labelledby="login-title">
      <h2 id="login-title">{t.login.title}</h2>
      <p>{t.login.at(url)}</p>
      <form onSubmit={submit}>
        <label>
          {t.login.user}{" "}
          <input
            name="username"
            autocomplete="username"
            value={username}
            onInput={(e) => setUsername(e.currentTarget.value)}
          />
        </label>
        <label>
          {t.login.password}{" "}
          <input
            type="password"
            name="password"
            autocomplete="current-password"
            value={password}
            onInput={(e) => setPassword(e.currentTarget.value)}
          />
        </label>
        <button class="primary">{t.login.button}</button>
      </form>
    </section>
  );
}
