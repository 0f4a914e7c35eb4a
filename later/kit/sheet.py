import sys,nbformat,base64,io
from PIL import Image, ImageDraw
nb=nbformat.read(f'notebooks/{sys.argv[1]}.ipynb',4); ims=[]
for i,c in enumerate(nb.cells):
    for o in c.get('outputs',[]):
        if 'image/png' in o.get('data',{}): ims.append((i,Image.open(io.BytesIO(base64.b64decode(o.data['image/png']))).convert('RGB')))
a,b=int(sys.argv[3]) if len(sys.argv)>3 else 0,int(sys.argv[4]) if len(sys.argv)>4 else 99
ims=ims[a:b]
W=2*820; rows=[]; y=0; pos=[]
x=0; rowh=0
for i,im in ims:
    if im.size[0]>810: im=im.resize((810,im.size[1]*810//im.size[0]))
    if x+820>W: x=0; y+=rowh+26; rowh=0
    pos.append((i,im,x,y)); x+=820; rowh=max(rowh,im.size[1])
S=Image.new('RGB',(W,y+rowh+26),'white'); d=ImageDraw.Draw(S)
for i,im,x,y in pos: S.paste(im,(x,y+20)); d.text((x+4,y+4),f'cell {i}',fill='red')
S.save(sys.argv[2]); print(len(ims),S.size)
