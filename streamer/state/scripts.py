"""The scripts that claims are made of. Each is one atomic step, for all ids of a slot at once.

Ids and coordinates come as MessagePack, two arrays of the same length: it is a third of the work of as many
arguments, on either side. A claim is a field of a hash, for two commands then take a whole window. Fields do
not expire by themselves, so there are two hashes: what is claimed goes into the one; when that is as old as
claims are to live, it becomes the other, which is only looked at, and the other before it goes. So a claim
lives once to twice that long. The field "", which is no id's, says when the first hash began.
"""

# KEYS: claims, and those before them. ARGV: seconds to live, seconds after which a group that is gone is
# forgotten, ids and coordinates, and 1 if an id comes twice: it is the first's then. Returns pairs: the
# number, from 1, of an id that has a holder, and the holder's coordinate.
CLAIM = """
local ids, coordinates = unpack(cmsgpack.unpack(ARGV[3]))
local now, began = redis.call('TIME')[1], redis.call('HGET', KEYS[1], '')
if began and now - began >= tonumber(ARGV[1]) then
  redis.call('UNLINK', KEYS[2])
  redis.call('RENAME', KEYS[1], KEYS[2])
  began = false
end
local held = redis.call('HMGET', KEYS[1], unpack(ids))
local before = redis.call('HMGET', KEYS[2], unpack(ids))
local twice, mine, fields, n, holders = ARGV[4] == '1', {}, {}, 0, {}
for i = 1, #ids do
  local id, coordinate = ids[i], coordinates[i]
  local holder = mine[id] or held[i] or before[i]
  if not holder or (not mine[id] and holder:sub(-1) == '!' and holder ~= coordinate .. '!') then
    if twice then mine[id] = coordinate end
    fields[n + 1], fields[n + 2] = id, coordinate
    n = n + 2
  else
    -- One that gave it back is about to hold it again, if it was not written: nobody takes it meanwhile.
    if twice and holder == coordinate .. '!' then mine[id] = coordinate end
    holders[#holders + 1] = i
    holders[#holders + 1] = holder
  end
end
if not began then redis.call('HSET', KEYS[1], '', now) end
if n > 0 then redis.call('HSET', KEYS[1], unpack(fields)) end
-- Last: Redis refuses what it has no memory for only as the first write of a script.
redis.call('EXPIRE', KEYS[1], ARGV[2])
return holders
"""
# KEYS: claims, and those before them. ARGV: ids and coordinates, what a claim ends in that is to change, and
# what it is to end in.
SIGN = """
local ids, coordinates = unpack(cmsgpack.unpack(ARGV[1]))
for i, id in ipairs(ids) do
  for _, key in ipairs(KEYS) do
    if redis.call('HGET', key, id) == coordinates[i] .. ARGV[2] then
      redis.call('HSET', key, id, coordinates[i] .. ARGV[3])
    end
  end
end
"""
# KEYS: the hash of written offsets. ARGV: seconds to live, then pairs of field and offset. A field never goes
# back: a worker that was cut off and finishes late may not undo what its successor has written.
MARK = """
for i = 2, #ARGV, 2 do
  if tonumber(ARGV[i + 1]) > tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or -1) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""
