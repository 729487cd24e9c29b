// The official client, m3o of npm, against an ingress: node client.mjs ADDRESS PREFIX

import assert from 'node:assert/strict';
import http from 'node:http';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const { Client } = require('@m3o/m3o-node');
const { AppService } = require('m3o/app');
const { FunctionService } = require('m3o/function');
const { HelloworldService } = require('m3o/helloworld');
const { UrlService } = require('m3o/url');
const { UserService } = require('m3o/user');

const [address, prefix] = process.argv.slice(2);
// `v1/` is what the client does when nobody says a prefix.
const options = prefix === 'v1/' ? { token: 'dev', address } : { token: 'dev', address, prefix };
const client = new Client(options);
assert.equal(client.options.prefix, prefix);

/** A typed service of the package, which by itself calls api.m3o.com alone. */
function service(Service) {
  const made = new Service('dev');
  made.client = client;
  return made;
}

const hello = service(HelloworldService);
const apps = service(AppService);
const functions = service(FunctionService);
const urls = service(UrlService);
const users = service(UserService);

/** The call is refused, with an error in the M3O shape. */
async function refused(call, code, detail) {
  const error = await call.then(
    (answer) => assert.fail(`not refused: ${JSON.stringify(answer)}`),
    (error) => error,
  );
  assert.deepEqual(Object.keys(error).sort(), ['code', 'detail', 'id', 'status'], String(error));
  assert.equal(error.code, code);
  assert.equal(error.status, http.STATUS_CODES[code]);
  assert.match(error.detail, detail);
  assert.ok(error.id.length > 0);
}

function collect(stream) {
  return new Promise((resolve, reject) => {
    const messages = [];
    stream.onMessage((message) => messages.push(message));
    stream.onError(reject);
    stream.onClose(() => resolve(messages));
  });
}

async function helloworld() {
  assert.deepEqual(await hello.call({ name: 'Jöhn "&=' }), { message: 'Hello Jöhn "&=' });
  assert.deepEqual(await client.call('helloworld', 'call', { name: 'A' }), { message: 'Hello A' });
  const messages = await collect(await hello.stream({ name: 'Alice', messages: 3 }));
  assert.equal(messages.length, 3);
  for (const { message } of messages) assert.match(message, /Alice/);
}

async function url() {
  const destinationURL = 'https://example.com/a?b=c&d=%20#e';
  const { url: made } = await urls.create({ id: 'Chosen_1', destinationURL });
  assert.equal(made.shortURL, `${address}u/Chosen_1`);
  assert.equal(made.destinationURL, destinationURL);
  await refused(urls.create({ id: 'Chosen_1', destinationURL }), 409, /taken/);
  await refused(urls.create({ destinationURL: 'javascript:alert(1)' }), 400, /destinationURL/);

  const { shortURL } = made;
  assert.deepEqual(await urls.resolve({ shortURL }), { destinationURL });
  const followed = await fetch(shortURL, { redirect: 'manual' });
  assert.equal(followed.status, 302);
  assert.equal(followed.headers.get('location'), destinationURL);
  const { urlPairs } = await urls.list({ shortURL });
  assert.equal(urlPairs.length, 1);
  assert.equal(urlPairs[0].hitCount, '2');

  await urls.update({ shortURL, destinationURL: 'https://example.org/' });
  assert.deepEqual(await urls.resolve({ shortURL }), { destinationURL: 'https://example.org/' });
  const short = await urls.shorten({ destinationURL });
  assert.deepEqual(await urls.resolve(short), { destinationURL });
  assert.equal((await urls.list({})).urlPairs.length, 2);
  await urls.delete({ shortURL });
  await refused(urls.resolve({ shortURL }), 404, /no such/);
  assert.equal((await fetch(shortURL, { redirect: 'manual' })).status, 404);
}

/** A request to a host under localhost, which not every resolver knows. */
function visit(link) {
  const { hostname, port, pathname, search } = new URL(link);
  return new Promise((resolve, reject) => {
    const head = { host: '127.0.0.1', port, path: pathname + search, headers: { host: hostname } };
    const request = http.get(head, async (response) => {
      let body = '';
      for await (const piece of response) body += piece;
      resolve({ status: response.statusCode, body });
    });
    request.on('error', reject);
  });
}

async function app(backend) {
  const port = new URL(address).port;
  const { service: made } = await apps.run({
    name: 'blog',
    repo: 'github.com/example/blog',
    branch: 'main',
    port: 8080,
    env_vars: { A: '1' },
    backend: `${backend}/blog`,
  });
  assert.equal(made.url, `http://blog.app.localhost:${port}`);
  assert.equal(made.status, 'running');
  const byName = { name: 'blog' };
  assert.deepEqual((await apps.get(byName)).service, made);
  assert.deepEqual((await apps.status(byName)).service, made);
  assert.deepEqual(await apps.resolve({ id: 'blog' }), { url: `${backend}/blog` });
  assert.deepEqual(await visit(`${made.url}/x?y=z`), { status: 200, body: 'GET /blog/x?y=z ' });

  await apps.update({ name: 'blog', backend: `${backend}/moved`, branch: 'next' });
  const { service: updated } = await apps.get(byName);
  assert.equal(updated.branch, 'next');
  assert.equal(updated.repo, 'github.com/example/blog');
  assert.deepEqual(await visit(`${made.url}/`), { status: 200, body: 'GET /moved/ ' });

  const names = (await apps.list({})).services.map(({ name }) => name);
  assert.deepEqual(names.sort(), ['blog', 'helloworld']);
  assert.equal(typeof (await apps.logs(byName)).logs, 'string');
  assert.ok((await apps.regions({})).regions.length > 0);
  await refused(apps.reserve(byName), 501, /not built/);
  await refused(apps.run({ name: 'blog', backend }), 409, /taken/);
  await refused(apps.run({ name: 'No_Label', backend }), 400, /name/);
  await apps.delete(byName);
  await refused(apps.get(byName), 404, /no such app/);
  await refused(apps.resolve({ id: 'blog' }), 404, /no such app/);
  assert.equal((await visit(`${made.url}/`)).status, 404);
}

async function func(backend) {
  const port = new URL(address).port;
  const name = 'greet';
  const { function: made } = await functions.deploy({
    name,
    repo: 'github.com/example/greet',
    entrypoint: 'Greet',
    runtime: 'go116',
    backend: `${backend}/greet`,
  });
  assert.equal(made.url, `http://greet.fn.localhost:${port}`);
  assert.deepEqual((await functions.describe({ name })).function, made);
  const { response } = await functions.call({ name, request: { who: 'Älice', n: 1 } });
  assert.deepEqual(response, { called: 'POST /greet', with: { who: 'Älice', n: 1 } });
  assert.deepEqual(await functions.proxy({ id: name }), { url: `${backend}/greet` });
  assert.equal((await visit(`${made.url}/x`)).body, 'GET /greet/x ');
  const names = (await functions.list({})).functions.map((each) => each.name);
  assert.deepEqual(names.sort(), ['greet', 'helloworld']);
  assert.ok((await functions.runtimes({})).runtimes.length > 0);
  assert.ok((await functions.regions({})).regions.length > 0);
  await functions.update({ name, backend: `${backend}/moved` });
  assert.deepEqual(await functions.proxy({ id: name }), { url: `${backend}/moved` });
  await refused(functions.reserve({ name }), 501, /not built/);
  await functions.delete({ name });
  await refused(functions.describe({ name }), 404, /no such function/);
  await refused(functions.call({ name, request: {} }), 404, /no such function/);
}

async function user() {
  const account = { id: 'alice-1', email: 'alice@example.com', username: 'alice' };
  const { account: made } = await users.create({
    ...account,
    password: 'correct horse',
    profile: { city: 'Ulm' },
  });
  assert.equal(made.email, account.email);
  assert.equal(made.verified, false);
  assert.ok(!JSON.stringify(made).includes('horse'));
  await refused(users.create({ ...account, password: 'correct horse' }), 409, /taken/);
  await refused(users.create({ email: 'b@example.com', password: 'short' }), 400, /password/);

  const { session } = await users.login({ email: account.email, password: 'correct horse' });
  assert.equal(session.userId, account.id);
  const sessionId = session.id;
  assert.deepEqual((await users.readSession({ sessionId })).session, session);
  assert.deepEqual((await users.read({ id: account.id })).account, made);

  await users.update({ id: account.id, username: 'alice2', profile: { city: 'Bonn' } });
  const { account: updated } = await users.read({ username: 'alice2' });
  assert.deepEqual(updated.profile, { city: 'Bonn' });
  const change = {
    userId: account.id,
    oldPassword: 'correct horse',
    newPassword: 'battery staple',
    confirmPassword: 'battery staple',
  };
  await users.updatePassword(change);
  await refused(users.updatePassword(change), 401, /wrong/);
  await refused(users.login({ username: 'alice2', password: 'correct horse' }), 401, /wrong/);
  await users.login({ username: 'alice2', password: 'battery staple' });

  await users.logout({ sessionId });
  await refused(users.readSession({ sessionId }), 404, /no such session/);
  await users.delete({ id: account.id });
  await refused(users.read({ id: account.id }), 404, /no such user/);
  const id = { userId: account.id };
  const email = { email: account.email };
  await refused(users.logoutAll(id), 501, /not built/);
  await refused(users.sendPasswordResetEmail(email), 501, /not built/);
  await refused(users.resetPassword(email), 501, /not built/);
  await refused(users.list({}), 501, /not built/);
  await refused(users.sendMagicLink(email), 501, /not built/);
  await refused(users.verifyToken({ token: 'a' }), 501, /not built/);
}

async function errors() {
  const stranger = new Client({ ...options, token: 'wrong' });
  await refused(stranger.call('helloworld', 'Call', {}), 401, /key/);
  const nobody = new Client({ address, prefix });
  await refused(nobody.call('helloworld', 'Call', {}), 401, /key|token|credential/i);
  await refused(apps.get({ name: 'nobody' }), 404, /no such app/);
  await refused(apps.get({}), 400, /name: is missing/);
  await refused(apps.get({ name: 5 }), 400, /name: must be a string/);
  await refused(client.call('nothing', 'Here', {}), 404, /./);
  await refused(client.call('app', 'Nothing', {}), 404, /./);
}

/** Tells how it was called; answers a POST with JSON. */
const backend = http.createServer(async (request, response) => {
  let body = '';
  for await (const piece of request) body += piece;
  if (request.method === 'POST') {
    const answer = { called: `POST ${request.url}`, with: JSON.parse(body) };
    response.setHeader('Content-Type', 'application/json').end(JSON.stringify(answer));
  } else {
    response.end(`${request.method} ${request.url} ${body}`);
  }
});
await new Promise((resolve) => backend.listen(0, '127.0.0.1', resolve));
const at = `http://127.0.0.1:${backend.address().port}`;
try {
  await helloworld();
  await url();
  await app(at);
  await func(at);
  await user();
  await errors();
} finally {
  backend.close();
  backend.closeAllConnections();
}
console.log('all is as expected');
