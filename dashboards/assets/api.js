// Requests to the service. At most two queries run at a time, so that several open pages share the server's places.

const LIMIT = 2;
let running = 0;
const waiting = [];

async function place() {
  if (running >= LIMIT) await new Promise((resolve) => waiting.push(resolve));
  running += 1;
}

function release() {
  running -= 1;
  waiting.shift()?.();
}

/** An answer that is not one: `message` says why, `help` what to do. */
export class Refused extends Error {
  constructor(message, help, status) {
    super(message);
    this.help = help;
    this.status = status;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("the service does not answer", "", 0);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refused(body.error ?? `the service answered ${response.status}`, body.help ?? "", response.status);
}

async function post(sql, accept, signal, parameters = "") {
  await place();
  try {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await ask(`/sql${parameters}`, { method: "POST", body: sql, headers: { accept, "content-type": "application/sql" }, signal });
      } catch (error) {
        if (error.status !== 429 || attempt === 2) throw error;
        await new Promise((resolve) => setTimeout(resolve, 400 * (attempt + 1)));
      }
    }
  } finally {
    release();
  }
}

/** The answer to a statement: `columns`, `rows`, `row_count`, `truncated`, `elapsed_ms`. */
export const query = async (sql, signal) => (await post(sql, "application/json", signal)).json();

const address = (name, parameters) => {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined);
  return `/api/${name}?${new URLSearchParams(given)}`;
};

/** The answer to a named query of the service, `overview/totals`. */
export const named = async (name, parameters = {}) => (await ask(address(name, parameters), { headers: { accept: "application/json" } })).json();

/** The same as a CSV file that is safe to open in a spreadsheet. */
export const namedCsv = async (name, parameters = {}) => (await ask(address(name, { ...parameters, csv: "spreadsheet" }), { headers: { accept: "text/csv" } })).blob();

/** The answer as a CSV file that is safe to open in a spreadsheet: no cell is a formula. */
export const csv = async (sql) => (await post(sql, "text/csv", undefined, "?csv=spreadsheet")).blob();

export const status = async () => (await ask("/status")).json();

export const tables = async () => (await ask("/tables")).json();
