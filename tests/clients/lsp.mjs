// A client of a language server, by hand: what it says and hears over standard input and output.

const PATIENCE_MS = 30000;

// What the promise of a request waits for.
export class Pending {
  waiting = new Map();
  last = 0;

  ask(send) {
    const id = ++this.last;
    const answer = new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no answer to ${id}`)), PATIENCE_MS);
      this.waiting.set(id, (value) => {
        clearTimeout(late);
        resolve(value);
      });
    });
    send(id);
    return Object.assign(answer, { id });
  }

  answered(id, value) {
    this.waiting.get(id)?.(value);
    this.waiting.delete(id);
  }
}

// Headers and a length before each message. `stdin` takes what is sent; what the server writes is
// told by `told`, as text.
export class Connection {
  pending = new Pending();
  rest = Buffer.alloc(0);
  // What the server says and asks by itself; a result is sent back for what it asks.
  heard = () => null;

  constructor(stdin) {
    this.stdin = stdin;
  }

  told(text) {
    this.rest = Buffer.concat([this.rest, Buffer.from(text)]);
    for (;;) {
      const head = this.rest.indexOf("\r\n\r\n");
      if (head < 0) return;
      const [, length] = /Content-Length: (\d+)/i.exec(this.rest.toString("utf8", 0, head));
      const end = head + 4 + Number(length);
      if (this.rest.length < end) return;
      const message = JSON.parse(this.rest.toString("utf8", head + 4, end));
      this.rest = this.rest.subarray(end);
      this.took(message);
    }
  }

  took({ id, method, params, result, error }) {
    if (method === undefined) return this.pending.answered(id, error ?? result);
    const answer = this.heard(method, params);
    if (id !== undefined) this.send({ id, result: answer ?? null });
  }

  send(message) {
    const body = JSON.stringify({ jsonrpc: "2.0", ...message });
    const length = Buffer.byteLength(body);
    this.stdin.write(`Content-Length: ${length}\r\n\r\n${body}`);
  }

  call(method, params) {
    return this.pending.ask((id) => this.send({ id, method, params }));
  }

  open(uri, languageId, text) {
    const textDocument = { uri, languageId, version: 1, text };
    this.send({ method: "textDocument/didOpen", params: { textDocument } });
  }
}
