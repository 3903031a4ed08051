// The trainer's page: rows from `state`, what is done to a seat goes to `act`. All text of seats is
// put in as text, never as HTML.
const meta = name => document.querySelector(`meta[name="${name}"]`).content;
const $ = id => document.getElementById(id);
const titles = new Map(meta('notebooks').split(' ').map(each => each.split('=')));
// Notebooks that get a column once somebody has begun them.
const further = new Set(meta('further').split(' '));
const inRoom = meta('hub') !== '';
const SIGNS = {done: '✔', failing: '✘', begun: '…'};
let chosen = null, last = null;

const element = (tag, text = '', name = '') => {
  const node = document.createElement(tag);
  node.textContent = text;
  if (name) node.className = name;
  return node;
};

const span = seconds => {
  const minutes = Math.floor(Math.max(0, seconds) / 60);
  return minutes < 1 ? 'now' : minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
};

const isWorking = (row, state) =>
  row.activity.at > 0 && (row.activity.running || state.now - row.activity.at < state.idle);

const doing = (row, state) => {
  const seen = row.activity;
  if (row.problem) return [row.problem, 'failing'];
  if (inRoom && row.server !== 'running') return [row.server === 'off' ? 'not there' : 'starting', ''];
  if (!seen.at) return ['has not begun', ''];
  if (seen.running) return [`a cell of ${seen.notebook} runs, ${span(state.now - seen.at)}`, 'now'];
  return isWorking(row, state) ? [`works on ${seen.notebook}`, 'now']
                               : [`idle for ${span(state.now - seen.at)}`, ''];
};

const cell = (row, number, state) => {
  const seen = row.activity.notebooks[number], here = row.activity.notebook === number && isWorking(row, state);
  if (!seen) return element('td', here ? '▶' : '', here ? 'now' : '');
  const td = element('td', `${here ? '▶ ' : ''}${SIGNS[seen.status]}`, seen.status === 'begun' && here ? 'now' : seen.status);
  td.title = [titles.get(number), seen.status, seen.error, seen.seconds ? `${span(seen.seconds)} of work` : '']
    .filter(Boolean).join('\n');
  return td;
};

const draw = state => {
  const numbers = [...titles.keys()].filter(n =>
    !further.has(n) || state.rows.some(row => row.activity.notebooks[n]));
  $('head').replaceChildren(element('th', 'Who'), ...numbers.map(n => {
    const th = element('th', n);
    th.title = titles.get(n);
    th.scope = 'col';
    return th;
  }), element('th', 'Now'), element('th', 'Needs help'), element('th', 'Disk'));
  const rows = [...state.rows].sort((a, b) => (b.activity.hand !== null) - (a.activity.hand !== null)
    || a.activity.hand_at - b.activity.hand_at || a.name.localeCompare(b.name));
  $('rows').replaceChildren(...rows.map(row => {
    const tr = document.createElement('tr'), seen = row.activity;
    tr.classList.toggle('hand', seen.hand !== null);
    tr.classList.toggle('chosen', row.name === chosen);
    const who = document.createElement('td'), button = element('button', row.name);
    button.type = 'button';
    button.addEventListener('click', () => { chosen = row.name; $('said').textContent = ''; draw(last); });
    who.append(button);
    const [words, name] = doing(row, state);
    const full = seen.disk_size ? 1 - seen.disk_free / seen.disk_size : 0;
    tr.append(who, ...numbers.map(n => cell(row, n, state)), element('td', words, `words ${name}`),
      element('td', seen.hand === null ? '' : `⚑ ${seen.hand || 'hand is up'}, ${span(state.now - seen.hand_at)}`, 'words'),
      element('td', seen.disk_size ? `${Math.round(100 * full)} %` : '', full > 0.95 ? 'failing' : ''));
    return tr;
  }));
  const hands = rows.filter(row => row.activity.hand !== null).length;
  const there = rows.filter(row => !inRoom || row.server === 'running').length;
  $('summary').textContent = state.problem ? `✘ ${state.problem}`
    : `${there} of ${rows.length} are there, ${hands} ${hands === 1 ? 'needs' : 'need'} help`;
  detail(rows.find(row => row.name === chosen));
};

const detail = row => {
  $('detail').hidden = !row;
  if (!row) return;
  const failures = row.activity.failures, latest = failures[failures.length - 1];
  $('who').textContent = row.name;
  $('problem').textContent = row.problem;
  $('error').textContent = latest ? `notebook ${latest.notebook}: ${latest.error}` : '';
  const link = (text, path) => {
    const a = element('a', text);
    a.href = path;
    a.target = '_blank';
    a.rel = 'noopener';
    return a;
  };
  const links = row.link ? [link('their JupyterLab', `${row.link}/lab`),
    ...row.activity.machines.map(name =>
      link(`screen of ${name}`, `${row.link}/rfe/machines/${encodeURIComponent(name)}`))] : [];
  $('links').replaceChildren(...links.flatMap((a, i) => i ? [' · ', a] : [a]));
  for (const button of $('acts').querySelectorAll('button')) {
    const action = button.dataset.action;
    button.hidden = !inRoom && ['lower', 'start', 'stop'].includes(action);
  }
};

const act = async action => {
  $('said').textContent = 'asking …';
  try {
    const answer = await fetch('act', {
      method: 'POST',
      headers: {'X-XSRFToken': meta('xsrf'), 'Content-Type': 'application/json'},
      body: JSON.stringify({seat: chosen, action, number: $('number').value}),
    });
    const text = await answer.text();
    try { $('said').textContent = JSON.parse(text).said; } catch { $('said').textContent = `✘ ${answer.status}`; }
  } catch (error) {
    $('said').textContent = `✘ ${error.message}`;
  }
};

const look = async () => {
  try {
    const answer = await fetch('state', {headers: {'X-XSRFToken': meta('xsrf')}});
    if (inRoom && answer.status === 403) location.reload();  // to log in
    if (!answer.ok) throw new Error(`the room does not answer: ${answer.status}`);
    last = await answer.json();
    draw(last);
  } catch (error) {
    $('summary').textContent = `✘ ${error.message}`;
  }
};

for (const [number, title] of titles) $('number').append(new Option(`${number} ${title}`, number));
for (const button of $('acts').querySelectorAll('button'))
  button.addEventListener('click', () => act(button.dataset.action));
await look();
setInterval(look, 2000);
