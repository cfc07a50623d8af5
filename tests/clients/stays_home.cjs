// Preloaded into a client: it reaches addresses, but nobody by name, and each name that it tries is
// a line on standard error.

const dns = require("node:dns");

dns.lookup = (name, options, callback) => {
  process.stderr.write(`looked up ${name}\n`);
  const error = new Error(`${name} is not to be asked`);
  (callback ?? options)(Object.assign(error, { code: "ENOTFOUND" }));
};
