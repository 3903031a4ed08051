// The button "Raise hand" in JupyterLab's menu bar, which asks the trainer for help (workbook/seat.py).
//
// JupyterLab loads an extension as a container of webpack's module federation: an object with `init`
// and `get`, under the extension's name in window._JUPYTERLAB. This one needs no build: it takes
// Lumino's Widget from the scope that JupyterLab shares.
(() => {
  let shared;

  const cookie = name =>
    document.cookie.split('; ').find(each => each.startsWith(`${name}=`))?.slice(name.length + 1);

  const ask = async (path, body) => {
    const page = JSON.parse(document.getElementById('jupyter-config-data').textContent);
    const answer = await fetch(`${page.baseUrl}rfe/seat${path}`, {
      method: body ? 'POST' : 'GET',
      headers: {
        'X-XSRFToken': cookie('_xsrf') ?? '',
        ...(page.token ? {Authorization: `token ${page.token}`} : {}),
      },
      body: body && JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    return answer.json();
  };

  const activate = async app => {
    const {Widget} = (await shared['@lumino/widgets'][Object.keys(shared['@lumino/widgets'])[0]].get())();
    const button = document.createElement('button');
    button.type = 'button';
    button.style.cssText =
      'border: none; background: none; color: inherit; cursor: pointer; padding: 0 8px; font: inherit; line-height: 27px';
    let up = false;
    const show = problem => {
      button.textContent = problem ? 'Not sent' : up ? '⚑ Hand is up' : '⚑ Raise hand';
      button.title = problem || (up ? 'The trainer sees that you need help. Click to lower it.'
                                    : 'Ask the trainer for help');
      button.setAttribute('aria-pressed', String(up));
      button.style.fontWeight = up ? 'bold' : 'normal';
    };
    const look = () => ask('').then(seat => { up = seat.hand !== null; show(); }, () => undefined);
    button.addEventListener('click', () =>
      ask('/hand', {up: !up}).then(answer => { up = answer.up; show(); },
                                   error => show(String(error.message ?? error))));
    show();
    const widget = new Widget({node: document.createElement('div')});
    widget.id = 'rfe-hand';
    widget.node.append(button);
    app.shell.add(widget, 'top', {rank: 900});
    await look();
    setInterval(look, 10000);
  };

  (window._JUPYTERLAB ??= {})['rfe-hand'] = {
    init: scope => { shared = scope; },
    get: async () => () => ({
      __esModule: true,
      default: {id: 'rfe-hand:button', autoStart: true, activate},
    }),
  };
})();
