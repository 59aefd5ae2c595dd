-- A statement that writes image_layers over sees them as they were when it began. Two builds that push one image and end
-- at once wait for each other in between, and the second must see what the first has left: a function's own statements
-- see what was committed until they begin.

create function trim_image_layers(image uuid, layers bigint) returns void
language sql volatile
as $$
    delete from image_layers where image_id = image and layer_number > layers
$$;

comment on function trim_image_layers(uuid, bigint) is 'Takes away the layers of an image above this number; the caller has locked its row of image_metadata.';
