// A person with a browser: what they do next is drawn from their habits, how long they look at a page from a
// log-normal distribution with their own median. The plan is JSON in JA4REC_PLAN (see cast.py).
'use strict'
const b = require('./browsers.js')

const plan = JSON.parse(process.env.JA4REC_PLAN)
plan.proxy = plan.proxy ?? process.env.JA4REC_PROXY
const { random, normal, choose } = b.randomness(plan.seed)
const LONGEST_S = 40
const TOPICS = ['garden', 'kitchen', 'workshop', 'cycling', 'reading', 'weather', 'travel', 'music']
const WORDS = ['lamp', 'winter garden', 'copper bread', 'bicycle repair', 'paper', 'harbour market', 'stone']

let steps = 0
let failed = 0

async function main () {
  const home = b.makeHome(plan)
  try {
    for (let visit = 0; visit < plan.visits; visit += 1) {
      if (visit) await b.sleep(3 + 4 * random())
      await browse(home, plan.seconds / plan.visits)
    }
  } finally {
    b.removeHome(home)
  }
  console.log(JSON.stringify({ steps, failed }))
  process.exit(steps ? 0 : 1)
}

async function browse (home, seconds) {
  const browser = await b.start(plan, home)
  try {
    const end = Date.now() + 1000 * seconds
    let page = await b.firstPage(browser)
    await b.block(plan, page)
    await attempt(() => b.open(plan, page, choose(plan.landings)))
    await look(page)
    for (let done = 0; done < plan.steps && Date.now() < end; done += 1) {
      const next = weighted(plan.habits)
      await attempt(async () => { page = (await ACTIONS[next](page, browser)) ?? page })
      await look(page)
    }
  } finally {
    await Promise.race([browser.close(), b.sleep(10)])
  }
}

async function attempt (action) {
  steps += 1
  try {
    await action()
  } catch (error) {
    failed += 1
    console.error(String(error).slice(0, 300))
  }
}

function weighted (weights) {
  let left = random() * Object.values(weights).reduce((sum, weight) => sum + weight, 0)
  for (const [name, weight] of Object.entries(weights)) {
    left -= weight
    if (left < 0) return name
  }
}

// Reads: moves the mouse, scrolls, takes a time that is mostly near the person's median and now and then long.
async function look (page) {
  const seconds = Math.min(LONGEST_S, plan.pace * Math.exp(0.8 * normal()))
  try {
    await page.mouse.move(Math.round(200 + random() * 700), Math.round(150 + random() * 400), { steps: 4 })
    if (random() < 0.6) await b.wheel(plan, page, 100 + random() * 600)
  } catch (error) {
    console.error(String(error).slice(0, 300))
  }
  await b.sleep(seconds)
}

async function links (page, selector) {
  const found = await page.$$(selector)
  if (!found.length) throw new Error(`no ${selector} on ${page.url()}`)
  return found
}

const inShop = (page) => page.url().includes('/shop/')

const ACTIONS = {
  async follow (page) {
    const shelf = page.url().endsWith('/shop/')
    const found = await page.$$(shelf ? '.shelf a' : inShop(page) ? 'nav a' : 'ul a, nav a')
    if (found.length) await b.clickThrough(plan, page, choose(found))
    else await ACTIONS.back(page)
  },
  async back (page) {
    await page.goBack({ waitUntil: 'load', timeout: 3000 })
  },
  async reload (page) {
    await page.reload({ waitUntil: 'load', timeout: b.PAGE_LIMIT_MS })
  },
  async home (page) {
    await b.clickThrough(plan, page, (await links(page, 'nav a'))[0])
  },
  async shop (page) {
    await b.open(plan, page, b.SHOP + '/shop/')
  },
  // A bookmark, or a link in another program.
  async typed (page) {
    await b.open(plan, page, `${b.WWW}/${choose(TOPICS)}/${1 + Math.floor(random() * 3)}.html`)
  },
  // Opens several links in tabs of their own, then reads the last one.
  async tabs (page, browser) {
    const before = (await browser.pages()).length
    const found = await links(page, 'ul a, .shelf a')
    for (let opened = 0; opened < 2 + Math.floor(random() * 3); opened += 1) {
      await choose(found).click({ button: 'middle' })
      await b.sleep(0.3 + random())
    }
    await b.sleep(1)
    const pages = await browser.pages()
    if (pages.length === before) throw new Error('no tab was opened')
    const tab = pages[pages.length - 1]
    await tab.bringToFront()
    return tab
  },
  async search (page) {
    await page.type('nav input', choose(WORDS), { delay: Math.round(60 + random() * 120) })
    const loaded = page.waitForNavigation({ waitUntil: 'load', timeout: b.PAGE_LIMIT_MS })
    await Promise.all([loaded, page.keyboard.press('Enter')])
  },
  async buy (page) {
    const item = `${b.SHOP}/shop/item-${1 + Math.floor(random() * 12)}.html`
    if (!page.url().includes('/shop/item')) await b.open(plan, page, item)
    await (await links(page, '#add'))[0].click()
  },
  async login (page) {
    await b.open(plan, page, b.WWW + '/login.html')
    await page.type('form[action="/login"] input[name=user]', 'reader', { delay: Math.round(90 + random() * 90) })
    const password = random() < 0.5 ? 'correct-horse' : 'correct-hrose'
    await page.type('input[name=password]', password, { delay: Math.round(80 + random() * 90) })
    await b.clickThrough(plan, page, (await links(page, 'form[action="/login"] button'))[0])
  }
}

main().catch((error) => { console.error(error); process.exit(1) })
