// The pages are complete without this script; it only keeps them up to date.
(function () {
  'use strict';
  const rows = document.getElementById('rows');
  if (rows) {
    const note = document.getElementById('sampling');
    const totals = document.getElementById('totals');
    const pause = document.getElementById('pause');
    let paused = false;
    const parts = { totals, picture: document.getElementById('picture') };
    const shown = {};
    const filter = new URLSearchParams(location.search);
    filter.set('since', rows.dataset.position);
    const events = new EventSource('/events?' + filter);
    events.addEventListener('changes', (event) => {
      const update = JSON.parse(event.data);
      for (const [name, part] of Object.entries(parts)) {
        if (update[name] !== shown[name]) part.innerHTML = shown[name] = update[name];
      }
      if (paused) return;
      rows.insertAdjacentHTML('afterbegin', update.rows);
      while (rows.children.length > 200) rows.lastElementChild.remove();
      if (update.rows) document.getElementById('empty')?.remove();
      note.textContent = update.note;
    });
    events.onerror = () => { note.textContent = 'The connection to millrace is interrupted; it is opened again.'; };
    pause.hidden = false;
    pause.addEventListener('click', () => {
      paused = !paused;
      pause.textContent = paused ? 'Continue' : 'Pause';
      pause.setAttribute('aria-pressed', String(paused));
    });
    const show = (plot) => {
      let chart = null;
      const clock = (second) => new Date(second * 1000).toISOString().slice(11, plot.dataset.window === 'hour' ? 16 : 19);
      const draw = async () => {
        const response = await fetch('/lag.json?window=' + plot.dataset.window).catch(() => null);
        if (!response || !response.ok) return;
        const lag = await response.json();
        const style = getComputedStyle(document.documentElement);
        const ink = style.getPropertyValue('--fg');
        const colors = ['--link', '--bad', '--good', '--warn'].map((name) => style.getPropertyValue(name));
        const data = [lag.seconds].concat(lag.lag_ms);
        if (chart && chart.series.length === data.length) return chart.setData(data);
        if (chart) chart.destroy();
        const span = plot.dataset.window === 'hour' ? 3600 : 60;
        chart = new uPlot({
          width: plot.clientWidth, height: 180,
          // The time axis is the whole window, in UTC like the other times of the page.
          tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), 'Etc/UTC'),
          scales: { x: { range: () => { const now = Date.now() / 1000; return [now - span, now]; } }, y: { range: (_, low, high) => [0, Math.max(high || 0, 10) * 1.1] } },
          axes: [{ stroke: ink, space: 80, values: (_, all) => all.map(clock) }, { stroke: ink, size: 60 }],
          series: [{ value: (_, second) => (second ? clock(second) : '--') }].concat(lag.sinks.map((label, n) => ({ label, stroke: colors[n % 4], width: 2, points: { show: true } }))),
        }, data, plot);
      };
      draw();
      setInterval(draw, 2000);
      addEventListener('resize', () => chart?.setSize({ width: plot.clientWidth, height: 180 }));
    };
    // The library of the plots is large: it is loaded when the page is shown.
    addEventListener('load', () => {
      const library = document.createElement('script');
      library.src = rows.dataset.plots;
      library.addEventListener('load', () => document.querySelectorAll('.plot').forEach(show));
      document.head.append(library);
    });
  }
  const light = document.getElementById('light');
  if (light) {
    const parts = { light, deliveries: document.getElementById('deliveries') };
    const events = new EventSource('/light' + location.search);
    const shown = {};
    // A light that has not changed is not announced again, and its links keep the focus.
    events.addEventListener('light', (event) => {
      for (const [name, content] of Object.entries(JSON.parse(event.data))) {
        if (content !== shown[name]) parts[name].innerHTML = shown[name] = content;
      }
    });
  }
  for (const text of navigator.clipboard ? document.querySelectorAll('pre[data-copy]') : []) {
    const copy = document.createElement('button');
    copy.type = 'button';
    copy.textContent = 'Copy';
    copy.setAttribute('aria-label', 'Copy: ' + text.dataset.copy);
    const message = document.createElement('span');
    message.setAttribute('role', 'status');
    copy.addEventListener('click', async () => {
      const copied = await navigator.clipboard.writeText(text.textContent).then(() => true, () => false);
      message.textContent = copied ? ' Copied.' : ' The browser does not allow it: select the text.';
    });
    text.after(copy, message);
  }
  const run = document.getElementById('run');
  if (run && run.dataset.running === 'true') {
    const poll = setInterval(async () => {
      const response = await fetch(location.pathname + '?part=true').catch(() => null);
      if (!response || !response.ok) return;
      const part = new DOMParser().parseFromString(await response.text(), 'text/html').getElementById('run');
      if (!part) return;
      if (part.innerHTML !== run.innerHTML) run.innerHTML = part.innerHTML;
      if (part.dataset.running === 'true') return;
      clearInterval(poll);
      document.getElementById('cancel')?.remove();
    }, 500);
  }
})();
