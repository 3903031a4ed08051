// The page of a machine: its screen with noVNC, its serial console with xterm.js, over the
// websockets of machine_page.py, which are beside this page's address.
import RFB from './vendor/novnc/core/rfb.js';
import { initLogging } from './vendor/novnc/core/util/logging.js';
import { Terminal } from './vendor/xterm/xterm.js';

const machine = document.body.dataset.machine;
const picture = document.getElementById('picture');
const terminal = document.getElementById('terminal');
const text = document.getElementById('text');
const RETRY = 1000; // milliseconds
const OFF = 4000; // the close code with a reason for the reader
const COLUMNS = 80, ROWS = 24; // a serial line says no other size to the machine

function say(line) {
  const state = document.getElementById('state');
  if (state.textContent !== line) state.textContent = line;
}

function connect(name) {
  const url = new URL(`${location.pathname.replace(/\/$/, '')}/${name}`, location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  const socket = new WebSocket(url);
  socket.binaryType = 'arraybuffer';
  return socket;
}

// the screen ---------------------------------------------------------------------------------------

initLogging('none'); // it calls each attempt to reach a machine that is off an error
let rfb = null;
let drawn = () => {}; // called at what the screen sends, which is when it changes

function watchScreen() {
  const socket = connect('screen');
  socket.addEventListener('message', () => drawn());
  const client = new RFB(picture, socket, { shared: true });
  client.scaleViewport = true;
  client.background = 'transparent';
  client.addEventListener('connect', () => {
    rfb = client;
    say('● connected');
    if (document.activeElement === picture) client.focus();
  });
  socket.addEventListener('close', event => {
    rfb = null;
    say(event.code === OFF ? `○ ${event.reason}; this page waits for it`
      : '○ no connection to JupyterLab; trying again (if it asks for a login: load this page again)');
    setTimeout(watchScreen, RETRY);
  });
}

// Tab arrives at the frame of the screen; noVNC's canvas takes the keys.
picture.addEventListener('focus', () => rfb?.focus());
document.getElementById('ctrl-alt-del').addEventListener('click', () => rfb?.sendCtrlAltDel());

// Keys of a keyboard of the United States: what each types alone, and with Shift.
const KEYS = new Map();
const ROWS_OF_KEYS = {
  Backquote: '`~', Minus: '-_', Equal: '=+', BracketLeft: '[{', BracketRight: ']}',
  Backslash: '\\|', Semicolon: ';:', Quote: '\'"', Comma: ',<', Period: '.>', Slash: '/?',
  Space: ' ', Enter: '\n', Tab: '\t',
};
[...')!@#$%^&*('].forEach((shifted, digit) => { ROWS_OF_KEYS[`Digit${digit}`] = digit + shifted; });
for (const letter of 'abcdefghijklmnopqrstuvwxyz') {
  ROWS_OF_KEYS[`Key${letter.toUpperCase()}`] = letter + letter.toUpperCase();
}
for (const [code, both] of Object.entries(ROWS_OF_KEYS)) {
  [...both].forEach((character, shift) => KEYS.set(character, { code, shift: shift === 1 }));
}
const KEYSYMS = { '\n': 0xff0d, '\t': 0xff09 };
const SHIFT = 0xffe1;
// A PC keeps a few keys, and an emulated one is slow to fetch them: the next key waits until this one
// shows, or until it is likely to have no echo.
const KEY_PAUSE = 50, NO_ECHO = 400;
const sleep = milliseconds => new Promise(resolve => { setTimeout(resolve, milliseconds); });

async function typeOnScreen(characters) {
  let left = '';
  for (const character of characters) {
    const key = KEYS.get(character);
    if (!key || !rfb) {
      left += character;
      continue;
    }
    const shown = new Promise(resolve => { drawn = resolve; });
    if (key.shift) rfb.sendKey(SHIFT, 'ShiftLeft', true);
    rfb.sendKey(KEYSYMS[character] ?? character.charCodeAt(0), key.code);
    if (key.shift) rfb.sendKey(SHIFT, 'ShiftLeft', false);
    await Promise.race([shown, sleep(NO_ECHO)]);
    await sleep(KEY_PAUSE);
  }
  return left;
}

// the console --------------------------------------------------------------------------------------

const term = new Terminal({ cols: COLUMNS, rows: ROWS, scrollback: 5000, fontFamily: 'monospace' });
const encoder = new TextEncoder();
let line = null; // the websocket
let old = 0; // messages from before this page that are still being written

function watchConsole() {
  const socket = connect('console');
  let first = false;
  socket.addEventListener('open', () => { line = socket; });
  socket.addEventListener('message', ({ data }) => {
    if (typeof data === 'string') {
      term.reset();
      first = true;
      return;
    }
    if (first) old += 1;
    term.write(new Uint8Array(data), first ? () => { old -= 1; } : undefined);
    first = false;
  });
  socket.addEventListener('close', () => {
    line = null;
    setTimeout(watchConsole, RETRY);
  });
}

function send(data) {
  const bytes = encoder.encode(data);
  for (let start = 0; line && start < bytes.length; start += 4096) {
    line.send(bytes.slice(start, start + 4096));
  }
}

// A terminal also answers what the machine asks of it: one of all viewers does, the one in which
// somebody types, and to no question of the past.
term.onData(data => { if (!old && document.activeElement === term.textarea) send(data); });
term.attachCustomKeyEventHandler(event => {
  if (event.type !== 'keydown' || !event.ctrlKey || event.altKey) return true;
  if (event.key.toLowerCase() === 'c' && term.hasSelection()) {
    copy();
    return false;
  }
  return event.key.toLowerCase() !== 'v'; // the browser pastes
});

async function copy() {
  const selected = term.getSelection();
  try {
    await navigator.clipboard.writeText(selected);
  } catch { // the browser has no clipboard for a page that came without TLS
    const kept = text.value;
    text.value = selected;
    text.select();
    document.execCommand('copy');
    text.value = kept;
  }
  term.clearSelection();
  term.focus();
}
document.getElementById('copy').addEventListener('click', copy);

function fit() {
  const pen = document.createElement('canvas').getContext('2d');
  pen.font = '100px monospace';
  const wide = (terminal.clientWidth - 16) / COLUMNS / (pen.measureText('W').width / 100);
  const full = document.fullscreenElement?.contains(terminal);
  const high = full ? terminal.clientHeight / ROWS / 1.25 : Infinity;
  term.options.fontSize = Math.max(5, Math.floor(2 * Math.min(wide, high)) / 2);
}

// the rest -----------------------------------------------------------------------------------------

document.getElementById('typing').addEventListener('submit', async event => {
  event.preventDefault();
  const characters = text.value.replaceAll('\r', '');
  if (event.submitter.value === 'console') {
    send(characters.replaceAll('\n', '\r'));
    text.value = '';
    term.focus();
  } else {
    text.value = await typeOnScreen(characters);
    if (text.value) say('○ the text that is left has no key, or the machine is off');
    else rfb?.focus();
  }
});

for (const button of document.querySelectorAll('.full')) {
  button.addEventListener('click', () => {
    if (document.fullscreenElement) document.exitFullscreen();
    else button.closest('section').requestFullscreen();
  });
}

// Ctrl+Alt, pressed and released alone, leaves screen and console for the buttons, as it does in
// other viewers of virtual machines: these take every other key. After both are up, or the machine
// would see one of them pressed for ever.
let alone = false;
addEventListener('keydown', event => {
  alone = event.ctrlKey && event.altKey && ['Control', 'Alt'].includes(event.key);
}, true);
addEventListener('keyup', event => {
  if (!alone || event.ctrlKey || event.altKey) return;
  alone = false;
  const section = event.target.closest?.('section');
  setTimeout(() => section?.querySelector('button').focus());
}, true);

// In a panel: the colours of JupyterLab, and the height of the frame.
if (frameElement) {
  document.body.classList.add('inside');
  const around = parent.document.body;
  const follow = () => {
    const light = around.dataset.jpThemeLight;
    if (light) document.documentElement.style.colorScheme = light === 'true' ? 'light' : 'dark';
  };
  new MutationObserver(follow).observe(around, { attributeFilter: ['data-jp-theme-light'] });
  follow();
  new ResizeObserver(() => {
    frameElement.style.height = `${document.documentElement.offsetHeight}px`;
  }).observe(document.documentElement);
}

term.open(terminal);
term.textarea.setAttribute('aria-label', `Console of ${machine}; Ctrl+Alt leaves it`);
new ResizeObserver(fit).observe(terminal);
fit();
watchConsole();
watchScreen();
