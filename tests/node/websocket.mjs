// A WebSocket as a browser opens it, its token as the subprotocol: node websocket.mjs ADDRESS PREFIX

import assert from 'node:assert/strict';
import WebSocket from 'ws';

const [address, prefix] = process.argv.slice(2);
const url = `${address.replace('http', 'ws')}${prefix}helloworld/Stream`;

/** Opens a stream and reads it to its end. */
function stream(protocols, request) {
  return new Promise((resolve, reject) => {
    const messages = [];
    const socket = new WebSocket(url, protocols);
    socket.on('open', () => socket.send(JSON.stringify(request)));
    socket.on('message', (message, isBinary) => {
      assert.equal(isBinary, false);
      messages.push(JSON.parse(message.toString()));
    });
    socket.on('unexpected-response', (request, response) => {
      request.destroy();
      reject(Object.assign(new Error('refused'), { status: response.statusCode }));
    });
    socket.on('error', reject);
    socket.on('close', (code) => resolve({ protocol: socket.protocol, code, messages }));
  });
}

// A browser ends a connection whose answer does not name the protocol that it asked for.
const { protocol, code, messages } = await stream(['dev'], { name: 'Alice', messages: 5 });
assert.equal(protocol, 'dev');
assert.notEqual(code, 1006, 'closed by a handshake, not cut off');
assert.equal(messages.length, 5);
for (const { message } of messages) assert.match(message, /Alice/);

await assert.rejects(stream(['wrong'], {}), { status: 401 });
await assert.rejects(stream([], {}), { status: 401 });
console.log('all is as expected');
