-- Record who is online in a project through one process, and announce each change exactly once.
--
-- KEYS[1]  who is online: a hash, '<process>:<user>' -> since when (ms)
-- ARGV[1]  the living processes of the shard: a hash of the same slot, process -> until when (ms)
-- ARGV[2]  the shard's signals, a stream of the same slot
-- ARGV[3]  how many signals are kept; ARGV[4] for how long, in milliseconds
-- ARGV[5]  project
-- ARGV[6]  time now, in the format of events
-- ARGV[7]  the process
-- ARGV[8]  in a project with more users than this, changes are not announced
-- ARGV[9]  how long the hash is kept without a change, in milliseconds
-- ARGV[10…] '+user': has a stream in this process; '-user': has none any more
--
-- Deletes the users of processes that are not alive. Returns {user, since, ...} of all online.

local key, alive, signals = KEYS[1], ARGV[1], ARGV[2]
local kept, kept_ms, project, at = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local process, most = ARGV[7], tonumber(ARGV[8])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local living = {[process] = true}
local processes = redis.call('HGETALL', alive)
for i = 1, #processes, 2 do
  if tonumber(processes[i + 1]) > now_ms then
    living[processes[i]] = true
  end
end

-- For each user: since when, and through how many living processes.
local since, through, users = {}, {}, 0
local lost = {}
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  local colon = string.find(fields[i], ':', 1, true)
  local user = string.sub(fields[i], colon + 1)
  if living[string.sub(fields[i], 1, colon - 1)] then
    local from = tonumber(fields[i + 1])
    if not since[user] then
      users = users + 1
    end
    since[user] = math.min(since[user] or from, from)
    through[user] = (through[user] or 0) + 1
  else
    redis.call('HDEL', key, fields[i])
    lost[#lost + 1] = user
  end
end

local function announce(user, status)
  if users <= most then
    local data = '{"projectId":"' .. project .. '","userId":' .. cjson.encode(user)
      .. ',"content":{"status":"' .. status .. '"},"timestamp":"' .. at .. '"}'
    redis.call('XADD', signals, 'MAXLEN', '~', kept, '*', 'project', project,
               'event', 'presence.changed', 'data', data)
    redis.call('PEXPIRE', signals, kept_ms)
  end
end

for i = 10, #ARGV do
  local user = string.sub(ARGV[i], 2)
  local field = process .. ':' .. user
  local was = redis.call('HEXISTS', key, field) == 1
  if string.sub(ARGV[i], 1, 1) == '+' then
    if not was then
      local from = since[user] or now_ms
      redis.call('HSET', key, field, string.format('%.0f', from))
      through[user] = (through[user] or 0) + 1
      if not since[user] then
        since[user] = from
        users = users + 1
        -- A user whose process died a moment ago was not announced offline.
        local returns = false
        for _, who in ipairs(lost) do
          returns = returns or who == user
        end
        if not returns then
          announce(user, 'online')
        end
      end
    end
  elseif was then
    redis.call('HDEL', key, field)
    through[user] = through[user] - 1
    if through[user] == 0 then
      since[user] = nil
      announce(user, 'offline')
      users = users - 1
    end
  end
end
local announced = {}
for _, user in ipairs(lost) do
  if not since[user] and not announced[user] then
    announced[user] = true
    announce(user, 'offline')
  end
end
redis.call('PEXPIRE', key, ARGV[9])

local online = {}
for user, from in pairs(since) do
  online[#online + 1] = user
  online[#online + 1] = string.format('%.0f', from)
end
return online
