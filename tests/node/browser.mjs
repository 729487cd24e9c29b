// A real browser, Chromium, against an ingress over HTTPS:
//
//   node browser.mjs dev HTTPS_PORT CA
//   node browser.mjs swaps HTTPS_PORT CA CERTIFICATES PREPARED
//
// `dev` opens the demo app. `swaps` runs an app of its own, and puts the pairs of the folder PREPARED,
// one after another, into the folder CERTIFICATES while a page holds a WebSocket and an event stream.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { tmpdir } from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import { chromium } from 'playwright-core';
import { WebSocketServer } from 'ws';

const [mode, port, authority, certificates, prepared] = process.argv.slice(2);
const PATIENCE = 30_000;
const ca = readFileSync(authority);

/** A home whose only trust is the authority: as a person adds it, by certutil. */
function homeThatTrusts() {
  const home = mkdtempSync(path.join(tmpdir(), 'browser-'));
  const store = path.join(home, '.pki', 'nssdb');
  mkdirSync(store, { recursive: true });
  const certutil = (...words) => execFileSync('certutil', ['-d', `sql:${store}`, ...words]);
  certutil('-N', '--empty-password');
  certutil('-A', '-t', 'C,,', '-n', 'authority', '-i', authority);
  return home;
}

async function withBrowser(use) {
  const home = homeThatTrusts();
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    env: { ...process.env, HOME: home },
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
    ],
  });
  try {
    await use(browser);
  } finally {
    await browser.close();
    rmSync(home, { recursive: true, force: true });
  }
}

/** Opens a page in a context of its own, which has connections of its own: no warning, over HTTP/2. */
async function open(browser, url) {
  const context = await browser.newContext();
  const page = await context.newPage();
  const failures = [];
  page.on('pageerror', (error) => failures.push(String(error)));
  page.on('requestfailed', (request) => failures.push(`${request.url()}: ${request.failure().errorText}`));
  const response = await page.goto(url, { timeout: PATIENCE });
  assert.equal(response.status(), 200);
  const protocol = await page.evaluate(() => performance.getEntriesByType('navigation')[0].nextHopProtocol);
  assert.equal(protocol, 'h2');
  const details = await response.securityDetails();
  assert.match(details.protocol, /TLS 1\.3/);
  return { context, page, failures, details };
}

async function dev() {
  await withBrowser(async (browser) => {
    const { page, failures } = await open(browser, `https://helloworld.app.localhost:${port}/`);
    await page.getByText('This is the demo app').waitFor({ timeout: PATIENCE });
    assert.match(await page.content(), /x-forwarded-proto[\s\S]*https/);
    assert.deepEqual(failures, []);
  });
}

/** The backend of an app: a page, an echo over a WebSocket, and a stream of events. */
async function backend() {
  const server = http.createServer((request, response) => {
    if (request.url === '/events') {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      let count = 0;
      const ticking = setInterval(() => response.write(`data: ${(count += 1)}\n\n`), 20);
      response.on('close', () => clearInterval(ticking));
    } else if (request.url === '/') {
      response.writeHead(200, { 'content-type': 'text/html' });
      response.end('<!doctype html><title>app</title><link rel="icon" href="data:,"><p>here</p>');
    } else {
      response.writeHead(404);
      response.end();
    }
  });
  new WebSocketServer({ server, path: '/echo' }).on('connection', (socket) => {
    socket.on('message', (message) => socket.send(String(message)));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

function call(endpoint, body) {
  const options = {
    ca, host: '127.0.0.1', port, servername: 'localhost', method: 'POST', path: `/v1/${endpoint}`,
    headers: { host: `localhost:${port}`, authorization: 'Bearer dev', 'content-type': 'application/json' },
  };
  return new Promise((resolve, reject) => {
    const request = https.request(options, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode));
    });
    request.on('error', reject);
    request.end(JSON.stringify(body));
  });
}

/** The common name that a new connection is shown. */
function shown() {
  return new Promise((resolve, reject) => {
    const options = { ca, host: '127.0.0.1', port, servername: 'page.app.localhost' };
    const socket = tls.connect(options, () => {
      resolve(socket.getPeerCertificate().subject.CN);
      socket.end();
    });
    socket.on('error', reject);
  });
}

/** Puts one pair in the place of the one that is served, and waits until it is. */
async function swap(pair) {
  for (const kind of ['key', 'crt']) {
    const next = path.join(certificates, `next.${kind}.tmp`);
    copyFileSync(path.join(prepared, `${pair}.${kind}`), next);
    renameSync(next, path.join(certificates, `served.${kind}`));
  }
  const until = Date.now() + PATIENCE;
  while ((await shown()) !== pair) {
    assert.ok(Date.now() < until, `${pair} was never served`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function swaps() {
  const server = await backend();
  const address = `http://127.0.0.1:${server.address().port}`;
  assert.equal(await call('app/Run', { name: 'page', backend: address }), 200);
  const pairs = readdirSync(prepared).filter((name) => name.endsWith('.crt')).sort();
  const url = `https://page.app.localhost:${port}/`;
  await withBrowser(async (browser) => {
    const first = await open(browser, url);
    await first.page.evaluate(() => {
      window.seen = { echoes: 0, events: 0, broken: [] };
      window.socket = new WebSocket(`wss://${location.host}/echo`);
      socket.onmessage = () => { seen.echoes += 1; };
      socket.onclose = () => seen.broken.push('socket');
      window.events = new EventSource('/events');
      events.onmessage = () => { seen.events += 1; };
      events.onerror = () => seen.broken.push('events');
      return new Promise((resolve) => { socket.onopen = resolve; });
    });
    /** Both still move, over the connections that they began on. */
    const moves = async () => {
      const before = await first.page.evaluate(() => {
        socket.send('again');
        return { ...seen };
      });
      const moved = ({ echoes, events }) => seen.echoes > echoes && seen.events > events;
      await first.page.waitForFunction(moved, before, { timeout: PATIENCE });
      assert.deepEqual(await first.page.evaluate(() => seen.broken), []);
    };
    await moves();
    for (const file of pairs) {
      const pair = path.basename(file, '.crt');
      await swap(pair);
      const next = await open(browser, url);
      assert.equal(next.details.subjectName, pair);
      assert.deepEqual(next.failures, []);
      await next.context.close();
      await moves();
    }
    assert.deepEqual(first.failures, []);
  });
  server.closeAllConnections();
  server.close();
}

await { dev, swaps }[mode]();
console.log('all is as expected');
process.exit(0);
